//! SHA-256 (FIPS 180-4) with a state that can be saved and resumed, also in another process.

use sha2::digest::generic_array::{GenericArray, typenum::U64};

const BLOCK: usize = 64;
/// Blocks that are handed to the compression function at once. They fit into the L1 cache of a core.
const BATCH: usize = 128;
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[derive(Clone)]
pub(crate) struct Resumable {
    state: [u32; 8],
    /// Bytes hashed so far.
    length: u64,
    /// The last bytes, which do not fill a block yet.
    rest: Vec<u8>,
}

impl Resumable {
    pub fn new() -> Self {
        Resumable { state: START, length: 0, rest: Vec::new() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let missing = (BLOCK - self.rest.len()).min(bytes.len());
            self.rest.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.rest.len() < BLOCK {
                return;
            }
            let block = std::mem::take(&mut self.rest);
            self.compress(&block);
        }
        let whole = bytes.len() - bytes.len() % BLOCK;
        self.compress(&bytes[..whole]);
        self.rest.extend_from_slice(&bytes[whole..]);
    }

    fn compress(&mut self, blocks: &[u8]) {
        let mut batch = [GenericArray::<u8, U64>::default(); BATCH];
        for bytes in blocks.chunks(BATCH * BLOCK) {
            let count = bytes.len() / BLOCK;
            for (block, bytes) in batch.iter_mut().zip(bytes.chunks_exact(BLOCK)) {
                block.copy_from_slice(bytes);
            }
            sha2::compress256(&mut self.state, &batch[..count]);
        }
    }

    pub fn finish(mut self) -> [u8; 32] {
        // The padding: a one bit, zeros up to 8 bytes before the end of a block, and the length in bits.
        let bits = self.length * 8;
        let mut end = std::mem::take(&mut self.rest);
        end.push(0x80);
        while end.len() % BLOCK != BLOCK - 8 {
            end.push(0);
        }
        end.extend_from_slice(&bits.to_be_bytes());
        self.compress(&end);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// The state, the length, and the bytes that do not fill a block yet.
    pub fn save(&self) -> Vec<u8> {
        let state = self.state.iter().flat_map(|word| word.to_be_bytes());
        state.chain(self.length.to_be_bytes()).chain(self.rest.iter().copied()).collect()
    }

    /// `None` means that the bytes do not come from `save`.
    pub fn load(saved: &[u8]) -> Option<Self> {
        let (words, rest) = saved.split_at_checked(32)?;
        let (length, rest) = rest.split_at_checked(8)?;
        let length = u64::from_be_bytes(length.try_into().ok()?);
        if rest.len() as u64 != length % BLOCK as u64 {
            return None;
        }
        let mut state = START;
        for (word, bytes) in state.iter_mut().zip(words.chunks_exact(4)) {
            *word = u32::from_be_bytes(bytes.try_into().ok()?);
        }
        Some(Resumable { state, length, rest: rest.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn it_is_sha_256_wherever_it_is_cut() {
        let bytes: Vec<u8> = (0..100_000u32).map(|number| (number * 7 % 251) as u8).collect();
        for length in [0, 1, 55, 56, 63, 64, 65, 119, 128, 8192, 8193, 100_000] {
            for cut in [0, 1, 63, 64, 100, 8191, length] {
                let bytes = &bytes[..length];
                let (first, second) = bytes.split_at(cut.min(length));
                let mut hasher = Resumable::new();
                hasher.update(first);
                let saved = hasher.save();
                let mut hasher = Resumable::load(&saved).expect("it was saved");
                hasher.update(second);
                assert_eq!(Digest::Sha256(hasher.finish()), Digest::of(bytes), "{length} {cut}");
            }
        }
        assert!(Resumable::load(b"short").is_none() && Resumable::load(&[0; 41]).is_none());
    }
}
