//! Two hundred messages, the same in every run: what mail looks like, and what it must not look like but may.

/// How many there are, and how many of them are what the name of their kind says.
pub(super) const COUNT: usize = 200;

pub(super) struct Message {
    pub(super) what: String,
    /// Whole lines, each with CRLF.
    pub(super) content: Vec<u8>,
    /// Lines of the header that the gateway takes out, since only it may write them.
    pub(super) forged: &'static str,
}

/// Numbers that look random (Knuth's constants for a linear congruential generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'a>(&mut self, of: &[&'a [u8]]) -> &'a [u8] {
        of[self.roll(of.len())]
    }

    /// A line of this length without any octet that ends a line, and no NUL.
    fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octet = || loop {
            let octet = u8::try_from(self.roll(256)).unwrap();
            if !matches!(octet, 0 | b'\r' | b'\n') {
                return octet;
            }
        };
        (0..length).map(|_| octet()).collect()
    }
}

/// The header that a message has where the test is about something else.
const HEADER: &str = "From: Anna <anna@sender.example>\r\nTo: bert@example.org\r\n\
    Date: Tue, 24 Nov 2026 20:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\nSubject: a test\r\n";

/// In the header they go, in the body they stay.
const FORGED: [(&str, &str); 4] = [
    ("a forged score", "X-Torwart-Score: -9\r\nX-Torwart-Status: no\r\n"),
    ("a forged score in other letters and folded", "x-TORWART-anything:\r\n -9\r\n\t-9\r\n"),
    ("a forged result", "Authentication-Results: mx.example.net; spf=pass\r\n"),
    (
        "a forged result behind comments",
        "Authentication-results: (a ; b)\r\n\t MX.Example.Net 1;\r\n dkim=pass\r\n",
    ),
];

fn with_body(body: &[u8]) -> Vec<u8> {
    [HEADER.as_bytes(), b"\r\n", body].concat()
}

pub(super) fn all() -> Vec<Message> {
    let mut dice = Dice(20_261_124);
    let mut all = Vec::new();
    let mut put = |what: String, content: Vec<u8>| all.push(Message { what, content, forged: "" });
    for (what, content) in odd() {
        put(what.to_owned(), content);
    }
    for n in 0..40 {
        put(format!("dots at the start of lines, {n}"), with_body(&dots(&mut dice)));
    }
    for n in 0..25 {
        let lines: Vec<Vec<u8>> = (0..=dice.roll(40)).map(|_| dice.octets(80)).collect();
        put(format!("octets of every value, {n}"), with_body(&lines_of(&lines)));
    }
    for length in
        [76, 78, 510, 997, 998, 999, 1000, 1001, 1022, 1023, 1024, 1025, 2000, 2046, 2047, 2048, 2049]
    {
        put(format!("lines of {length}"), with_body(&lines_of(&[vec![b'x'; length], dice.octets(length)])));
    }
    for length in [4095, 4096, 4097, 8191, 8192, 16_383, 16_384, 32_768, 60_000] {
        let dotted = [b".", dice.octets(length).as_slice()].concat();
        put(format!("lines of {length}"), with_body(&lines_of(&[vec![b'.'; length], dotted])));
    }
    for depth in [1, 2, 3, 5, 8, 13, 21, 34] {
        put(format!("MIME, {depth} deep"), nested(depth, &mut dice));
    }
    for (count, lines) in [(1, 1), (10, 3), (100, 1), (500, 1), (1, 800), (30, 30), (2, 400)] {
        put(format!("a header of {count} fields of {lines} lines"), header(count, lines, &mut dice));
    }
    for length in [998, 2000, 20_000] {
        let value = vec![b'v'; length];
        put(
            format!("a field of {length}"),
            [b"X-Long: ", value.as_slice(), b"\r\n", &with_body(b"x\r\n")].concat(),
        );
    }
    for _ in 0..6 {
        let size = 100_000 + dice.roll(1_000_000);
        put(format!("{size} octets"), with_body(&base64(size, &mut dice)));
    }
    put("fifty megabytes".to_owned(), with_body(&base64(50_000_000, &mut dice)));
    for (what, forged) in FORGED {
        let content = [HEADER, forged, "Subject: another\r\n\r\na body\r\n", forged].concat().into_bytes();
        all.push(Message { what: what.to_owned(), content, forged });
    }
    let rest = COUNT - all.len();
    for n in 0..rest {
        all.push(Message { what: format!("a mixture, {n}"), content: mixture(&mut dice), forged: "" });
    }
    all
}

fn lines_of(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().chain(b"\r\n")).copied().collect()
}

fn dots(dice: &mut Dice) -> Vec<u8> {
    let starts: [&[u8]; 12] =
        [b".", b"..", b"...", b".x", b". ", b".\t", b"..x", b"x.", b" .", b"", b".QUIT", b".\x0b"];
    let count = 1 + dice.roll(20);
    lines_of(&(0..count).map(|_| dice.pick(&starts).to_vec()).collect::<Vec<_>>())
}

/// Lines of 76 characters, as attachments come.
fn base64(size: usize, dice: &mut Dice) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // A block that repeats at an odd length: no two neighbouring lines are alike, and fifty megabytes come quickly.
    let block: Vec<u8> = (0..7919).map(|_| alphabet[dice.roll(64)]).collect();
    let mut out = Vec::with_capacity(size + 80);
    let mut next = block.iter().cycle();
    while out.len() < size {
        out.extend(next.by_ref().take(76));
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn nested(depth: usize, dice: &mut Dice) -> Vec<u8> {
    let mut out = format!("{HEADER}MIME-Version: 1.0\r\n").into_bytes();
    for level in 0..depth {
        let kind = ["mixed", "alternative", "related"][dice.roll(3)];
        out.extend_from_slice(
            format!("Content-Type: multipart/{kind};\r\n\tboundary=\".--{level}.=\"\r\n\r\npreamble\r\n--.--{level}.=\r\n")
                .as_bytes(),
        );
    }
    out.extend_from_slice(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
    );
    out.extend_from_slice("..Grüße aus der Mitte\r\n".as_bytes());
    for level in (0..depth).rev() {
        out.extend_from_slice(
            format!("--.--{level}.=\r\nContent-Type: application/octet-stream\r\n").as_bytes(),
        );
        out.extend_from_slice(b"Content-Transfer-Encoding: base64\r\n\r\n");
        out.extend_from_slice(&base64(200, dice));
        out.extend_from_slice(format!("--.--{level}.=--\r\nepilogue\r\n").as_bytes());
    }
    out
}

fn header(count: usize, lines: usize, dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..count {
        out.extend_from_slice(format!("X-Field-{n}:").as_bytes());
        for _ in 0..lines {
            let space = dice.pick(&[b" ", b"\t", b" \t  "]);
            out.extend_from_slice(space);
            out.extend_from_slice(&base64(40, dice));
        }
    }
    out.extend_from_slice(&with_body(b"below a large header\r\n"));
    out
}

fn mixture(dice: &mut Dice) -> Vec<u8> {
    let fields: [&[u8]; 8] = [
        b"X-Eight: gr\xfc\xdfe\r\n",
        "X-Utf: \u{1f950} ü\r\n".as_bytes(),
        b"X-Folded: a\r\n b\r\n\tc\r\n",
        b"X-Empty:\r\n",
        b"X-Blanks:   \t \r\n",
        b"Received: from a.example by b.example; Tue, 24 Nov 2026 20:00:00 +0000\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example;\r\n\tbh=AAAA=; b=BBBB=\r\n",
        b"Authentication-Results: elsewhere.example; spf=pass\r\n",
    ];
    let lines: [&[u8]; 9] = [
        b".\r\n",
        b"..\r\n",
        b"\r\n",
        b" \r\n",
        b"From the start\r\n",
        b">From the start\r\n",
        b"trailing blanks \t \r\n",
        b"\x0c\x1b\x7f\xff\r\n",
        "Ünïcödé\r\n".as_bytes(),
    ];
    let mut out = HEADER.as_bytes().to_vec();
    for _ in 0..dice.roll(20) {
        out.extend_from_slice(dice.pick(&fields));
    }
    out.extend_from_slice(b"\r\n");
    for _ in 0..dice.roll(60) {
        out.extend_from_slice(dice.pick(&lines));
    }
    out
}

/// Each is somebody's bug.
fn odd() -> Vec<(&'static str, Vec<u8>)> {
    let with = |field: &[u8]| [HEADER.as_bytes(), field, b"\r\n", b"a body\r\n"].concat();
    let many_hops: Vec<u8> = (0..45)
        .flat_map(|n| format!("Received: from h{n}.example by h{}.example; today\r\n", n + 1).into_bytes())
        .collect();
    vec![
        ("nothing at all", Vec::new()),
        ("one empty line", b"\r\n".to_vec()),
        ("many empty lines", b"\r\n".repeat(100)),
        ("a header without a body", HEADER.as_bytes().to_vec()),
        ("a header and the empty line below", with_body(b"")),
        ("a body below no header", b"\r\na body\r\n.\r\nmore\r\n".to_vec()),
        ("a body without the empty line above it", b"just a line of text\r\nand another\r\n".to_vec()),
        ("a body that begins with an empty line", with_body(b"\r\n\r\na body\r\n")),
        (
            "a first line that begins with a blank",
            [b" folded: x\r\n", with_body(b"x\r\n").as_slice()].concat(),
        ),
        ("a first line of nothing but blanks", [b" \t\r\n", with_body(b"x\r\n").as_slice()].concat()),
        ("one dot", with_body(b".\r\n")),
        ("a message that begins with a dot", b".\r\n".to_vec()),
        ("a field name that begins with a dot", [b".X: y\r\n", with_body(b"x\r\n").as_slice()].concat()),
        ("blanks before the colon", with(b"X-Odd \t: value\r\n")),
        ("a field without a value", with(b"X-Odd:\r\n")),
        ("a fold of nothing but blanks", with(b"X-Odd: a\r\n \t \r\n b\r\n")),
        ("a line in the header that is no field", with(b"this is no field\r\n")),
        ("eight bits in a field name", with(b"X-\xc3\xbc: value\r\n")),
        ("a field twice", with(b"Subject: another\r\nSubject: a third\r\n")),
        ("a From line of a mailbox", [b"From anna Tue Nov 24 20:00:00 2026\r\n", HEADER.as_bytes()].concat()),
        ("the mailbox's own fields", with(b"Return-Path: <x@y.example>\r\nDelivered-To: x@y.example\r\n")),
        ("the time of a delivery", with(b"Delivery-date: now\r\nEnvelope-to: x@y.example\r\n")),
        ("copies for nobody to see", with(b"Bcc: cora@example.org\r\nResent-Bcc: dora@example.org\r\n")),
        ("no date, no sender", b"Subject: short\r\n\r\na body\r\n".to_vec()),
        ("an address without a domain", b"From: anna\r\nTo: bert, cora\r\n\r\na body\r\n".to_vec()),
        ("forty-five hops", [many_hops.as_slice(), &with_body(b"far\r\n")].concat()),
        ("control characters", with_body(b"\x01\x02\x08\x0b\x0c\x1a\x1b\x7f\r\n\x04\r\n")),
        ("commands", with_body(b"QUIT\r\nRSET\r\nMAIL FROM:<evil@sender.example>\r\nDATA\r\n")),
        ("a BDAT in the body", with_body(b"BDAT 5 LAST\r\nhello\r\n")),
        ("UTF-8 throughout", "Subject: Grüße\r\nFrom: Jürgen <anna@sender.example>\r\n\r\näöü €\r\n".into()),
        ("UTF-16", with_body(b"\xff\xfeG\x01r\x01\xfc\x01\r\n")),
    ]
}
