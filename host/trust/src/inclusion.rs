//! Proofs that a log holds an entry: a path in its Merkle tree (RFC 9162, 2.1.3) up to a root that the log signed in a
//! checkpoint (C2SP, signed-note and tlog-checkpoint).

use crate::{Result, Wrong, from_base64, publickey::PublicKey};
use sha2::{Digest, Sha256};

type Hash = [u8; 32];

/// The most signatures of a state: that of the log, and those of its witnesses.
const SIGNATURES: usize = 16;

/// A proof, as a bundle holds it.
pub struct Proof<'a> {
    /// The number of the entry in the tree.
    pub index: u64,
    /// How many entries the tree has.
    pub size: u64,
    /// The hashes beside the path, from the entry to the root.
    pub hashes: Vec<Vec<u8>>,
    /// The root, as the proof gives it.
    pub root: Vec<u8>,
    /// What the log signed.
    pub checkpoint: &'a str,
}

impl Proof<'_> {
    /// Checks that one of the logs holds an entry with these bytes.
    pub fn check(&self, entry: &[u8], logs: &[PublicKey]) -> Result<()> {
        let checkpoint = Checkpoint::parse(self.checkpoint)?;
        if !checkpoint.is_signed_by(logs) {
            return Err(Wrong("none of the trusted logs signed the state that its proof leads to".into()));
        }
        let root = self.root_of(entry)?;
        match checkpoint.size == self.size && checkpoint.root == root && self.root == root {
            true => Ok(()),
            false => Err(Wrong("its proof does not lead to the state that the log signed".into())),
        }
    }

    /// The root to which the path leads (RFC 9162, 2.1.3.2).
    fn root_of(&self, entry: &[u8]) -> Result<Hash> {
        let wrong = || Wrong("the proof of its log has a wrong shape".into());
        if self.index >= self.size {
            return Err(wrong());
        }
        let (mut node, mut last) = (self.index, self.size - 1);
        let mut hash: Hash = Sha256::new().chain_update([0]).chain_update(entry).finalize().into();
        for beside in &self.hashes {
            if beside.len() != 32 || last == 0 {
                return Err(wrong());
            }
            let is_right = node & 1 == 1 || node == last;
            hash = match is_right {
                true => parent(beside, &hash),
                false => parent(&hash, beside),
            };
            // The last node of a level that has no sibling stands for its ancestors, too.
            while is_right && node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
            node >>= 1;
            last >>= 1;
        }
        if last == 0 { Ok(hash) } else { Err(wrong()) }
    }
}

fn parent(left: &[u8], right: &[u8]) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The state of a log, with signatures of it.
struct Checkpoint<'a> {
    origin: &'a str,
    size: u64,
    root: Vec<u8>,
    /// What is signed.
    text: &'a str,
    /// The name of each signer, four bytes that hint at its key, and the signature.
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Checkpoint<'a> {
    fn parse(note: &'a str) -> Result<Self> {
        let wrong = || Wrong("the state that its log signed cannot be read".into());
        let end = note.find("\n\n").ok_or_else(wrong)?;
        let (text, signatures) = (&note[..=end], &note[end + 2..]);
        let mut lines = text.lines();
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or_else(wrong)?;
        let size = lines.next().and_then(|size| size.parse().ok()).ok_or_else(wrong)?;
        let root = lines.next().and_then(|root| from_base64(root).ok()).ok_or_else(wrong)?;
        if root.len() != 32 {
            return Err(wrong());
        }
        if signatures.lines().count() > SIGNATURES {
            return Err(Wrong("the state that its log signed has too many signatures".into()));
        }
        let signatures = signatures.lines().map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let signature = from_base64(signature).ok().filter(|bytes| bytes.len() > 4)?;
            Some((name, signature))
        });
        let signatures = signatures.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        Ok(Checkpoint { origin, size, root, text, signatures })
    }

    /// Whether one of the logs signed it. Signatures of witnesses stand beside that of the log.
    fn is_signed_by(&self, logs: &[PublicKey]) -> bool {
        self.signatures.iter().any(|(name, signature)| {
            let (hint, signature) = signature.split_at(4);
            // Rekor 1 adds the number of the tree to its name.
            let rest = self.origin.strip_prefix(name);
            let is_log = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" - "));
            let mut keys = logs.iter().filter(|key| key.hints(name).iter().any(|known| known == hint));
            is_log && keys.any(|key| key.made(self.text.as_bytes(), signature))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};

    /// The hash of a tree, as RFC 9162, 2.1.1 defines it.
    fn tree(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [leaf] => Sha256::new().chain_update([0]).chain_update(leaf).finalize().into(),
            many => {
                let split = many.len().next_power_of_two() / 2;
                parent(&tree(&many[..split]), &tree(&many[split..]))
            }
        }
    }

    /// The path of a leaf (RFC 9162, 2.1.3.1).
    fn path(leaves: &[Vec<u8>], index: usize) -> Vec<Vec<u8>> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (mut path, beside) = match index < split {
            true => (path(&leaves[..split], index), tree(&leaves[split..])),
            false => (path(&leaves[split..], index - split), tree(&leaves[..split])),
        };
        path.push(beside.to_vec());
        path
    }

    #[test]
    fn a_path_leads_to_the_root_of_its_tree_only() {
        for size in 1..=17 {
            let leaves: Vec<Vec<u8>> = (0..size).map(|leaf| vec![leaf as u8; leaf]).collect();
            for index in 0..size {
                let proof = Proof {
                    index: index as u64,
                    size: size as u64,
                    hashes: path(&leaves, index),
                    root: Vec::new(),
                    checkpoint: "",
                };
                assert_eq!(proof.root_of(&leaves[index]).unwrap(), tree(&leaves), "{index} of {size}");
                assert_ne!(proof.root_of(b"another").unwrap(), tree(&leaves));
                let other = Proof { index: (index as u64 + 1) % size as u64, ..proof };
                assert!(size == 1 || other.root_of(&leaves[index]).ok() != Some(tree(&leaves)));
            }
        }
    }

    #[test]
    fn a_state_counts_only_as_its_log_signed_it() {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        let log = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let prefix = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        let key = PublicKey::from_der(&[&prefix, log.public_key().as_ref()].concat()).unwrap();
        let entry = b"an entry".to_vec();
        let root = tree(std::slice::from_ref(&entry));
        let text = format!("log.example.com\n1\n{}\n", STANDARD.encode(root));
        let signature = |name: &str, hint: &[u8], text: &str| {
            let signed = [hint, log.sign(text.as_bytes()).as_ref()].concat();
            format!("\u{2014} {name} {}\n", STANDARD.encode(signed))
        };
        let hint = key.hints("log.example.com")[1].to_vec();
        let right = signature("log.example.com", &hint, &text);
        let witness = signature("witness.example.com", &[1, 2, 3, 4], &text);
        for (note, is_right) in [
            (format!("{text}\n{right}"), true),
            (format!("{text}\n{witness}{right}"), true),
            (format!("{text}\n{witness}"), false),
            (format!("{text}\n"), false),
            (text.clone(), false),
            (format!("{text}\n{}", signature("log.example.com", &[0; 4], &text)), false),
            (format!("{text}\n{}", signature("other.example.com", &hint, &text)), false),
            (format!("{text}extension\n\n{right}"), false),
            (format!("{text}\n{}", signature("log.example.com", &hint, "other")), false),
        ] {
            let proof =
                Proof { index: 0, size: 1, hashes: Vec::new(), root: root.to_vec(), checkpoint: &note };
            assert_eq!(proof.check(&entry, std::slice::from_ref(&key)).is_ok(), is_right, "{note}");
            assert!(proof.check(b"another", std::slice::from_ref(&key)).is_err());
        }
    }
}
