//! The admin port as a client sees it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// One scrape of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    pub fn scrape(admin: SocketAddr) -> io::Result<Self> {
        let (status, text) = get(admin, "/metrics")?;
        if status == 200 {
            Ok(Self { text })
        } else {
            Err(io::Error::other(format!("/metrics says {status}")))
        }
    }

    /// What several processes say together: the same series is added up, but for `..._info`, which is the same fact
    /// told by each.
    pub fn together(scrapes: &[Self]) -> Self {
        let mut series: Vec<(&str, f64)> = Vec::new();
        for line in
            scrapes.iter().flat_map(|scrape| scrape.text.lines()).filter(|line| !line.starts_with('#'))
        {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let is_info = name.split('{').next().is_some_and(|name| name.ends_with("_info"));
            match series.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) if is_info => *sum = sum.max(value),
                Some((_, sum)) => *sum += value,
                None => series.push((name, value)),
            }
        }
        Self { text: series.iter().map(|(name, value)| format!("{name} {value}\n")).collect() }
    }

    /// What somebody else has scraped.
    pub fn of(text: &str) -> Self {
        Self { text: text.to_owned() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The sum over all series of `name` that carry all of `labels`; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name).filter(|(written, _)| carries(written, labels)).map(|(_, value)| value).sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.series(name).next().is_some()
    }

    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once('}')?,
                None if rest.starts_with(' ') => ("", rest),
                None => return None,
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }
}

fn carries(written: &str, labels: &[(&str, &str)]) -> bool {
    labels.iter().all(|(key, value)| written.contains(&format!("{key}=\"{value}\"")))
}

/// Status and body of one HTTP GET.
pub(crate) fn get(server: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {answer:?}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok((status, joined_chunks(body)));
    }
    Ok((status, body.to_owned()))
}

fn joined_chunks(mut body: &str) -> String {
    let mut joined = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size) else { break };
        if size == 0 {
            break;
        }
        joined.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_series_of_several_processes_is_added_up_but_for_information() {
        let one = Metrics {
            text: "# HELP a b\na_total{x=\"1\"} 1\na_total{x=\"2\"} 5\nb_info{r=\"x y\"} 1\n".to_owned(),
        };
        let other = Metrics { text: "a_total{x=\"1\"} 2.5\nb_info{r=\"x y\"} 1\nc 1e3\n".to_owned() };
        let both = Metrics::together(&[one, other]);
        assert_eq!(both.sum("a_total", &[("x", "1")]), 3.5);
        assert_eq!(both.sum("a_total", &[]), 8.5);
        assert_eq!(both.sum("b_info", &[]), 1.0);
        assert_eq!(both.sum("c", &[]), 1000.0);
    }
}
