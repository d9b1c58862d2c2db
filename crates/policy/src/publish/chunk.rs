//! One chunk, as text and compressed.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::{Chunk, ChunkHash, InvalidChunk};
use crate::snapshot::hex;

/// Longest text of a chunk, in bytes. A reader takes no longer one, however small it is compressed.
pub const MOST_TEXT: usize = 32 << 20;

/// What a ConfigMap can hold at most.
const MOST_BYTES: usize = 1 << 20;

// === impl Chunk ===

impl Chunk {
    pub(crate) fn new(text: String) -> Self {
        Self { hash: ChunkHash(hex(&Sha256::digest(text.as_bytes())).into()), text }
    }

    /// Whether no reader would take it.
    pub fn is_too_long(&self) -> bool {
        self.text.len() > MOST_TEXT
    }

    /// gzip (RFC 1952), so that people can look into it: `base64 -d | gunzip`. The same text is the same bytes.
    pub fn compress(&self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // A Vec takes whatever is written.
        let _ = encoder.write_all(self.text.as_bytes());
        encoder.finish().unwrap_or_default()
    }

    /// Reads what [`compress`](Self::compress) made.
    ///
    /// # Errors
    /// If it is not what has this hash, or too large to be a chunk.
    pub fn decompress(hash: &ChunkHash, bytes: &[u8]) -> Result<Self, InvalidChunk> {
        if bytes.len() > MOST_BYTES {
            return Err(InvalidChunk(format!(
                "chunk {hash} has {} bytes, more than {MOST_BYTES}",
                bytes.len()
            )));
        }
        let mut text = Vec::new();
        let most = u64::try_from(MOST_TEXT).unwrap_or(u64::MAX);
        GzDecoder::new(bytes)
            .take(most.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(|error| InvalidChunk(format!("chunk {hash} is no gzip: {error}")))?;
        if text.len() > MOST_TEXT {
            return Err(InvalidChunk(format!("chunk {hash} is longer than {MOST_TEXT} bytes")));
        }
        let text =
            String::from_utf8(text).map_err(|_| InvalidChunk(format!("chunk {hash} is no UTF-8 text")))?;
        Self::checked(hash, text)
    }

    /// # Errors
    /// If it is not the text that has this hash.
    pub fn checked(hash: &ChunkHash, text: String) -> Result<Self, InvalidChunk> {
        let chunk = Self::new(text);
        if chunk.hash != *hash {
            return Err(InvalidChunk(format!("chunk {hash} holds a text with another hash, {}", chunk.hash)));
        }
        Ok(chunk)
    }
}

// === impl ChunkHash ===

impl ChunkHash {
    /// `None` unless it is 64 digits of hex in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (text.len() == 64 && digits(text)).then(|| Self(text.into()))
    }
}

impl std::fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
