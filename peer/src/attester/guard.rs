//! The guard: what this organisation signed last, on disk before it is signed.
//!
//! It is the only thing here that cannot be computed again. It is made once, by an explicit
//! command, together with the key. Lost, foreign or unreadable, it means silence until the config
//! names a new key: whoever guessed might sign a second header for one height.
//!
//! The file holds two slots of a fixed size and is written in place, to the older slot, with one
//! `fdatasync`: half the cost of a temporary file with rename, whose directory wants a sync too.
//! A crash tears the slot being written, never the other. The torn one was not signed for yet, because
//! signing waits for the sync, so the other slot is all that was ever promised.
//!
//! ```text
//! slot = magic (8) ‖ channel (32) ‖ attester (32) ‖ counter (8) ‖ chains (4) ‖
//!        chains × ( partition (4) ‖ epoch (4) ‖ heights signed (8, 0: none) ‖ header (32) ) ‖ SHA-256 of it all
//! ```
//! Heights of a later epoch will begin again at 0, so the epoch has its place; today it is 0, and another one is not understood.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use protocol::{CONTROL, Digest, sha256};

const MAGIC: &[u8; 8] = b"mlguard2";
const EPOCH: [u8; 4] = [0; 4];
const HEAD_BYTES: usize = 8 + 32 + 32 + 8 + 4;
const CHAIN_BYTES: usize = 4 + 4 + 8 + 32;

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("{}: {doing}: {cause}", file.display())]
    Io {
        file: PathBuf,
        doing: &'static str,
        cause: io::Error,
    },
    #[error("{}: exists already; a guard is made once, and never again for the same key", .0.display())]
    Exists(PathBuf),
    #[error("{}: neither slot is intact", .0.display())]
    Damaged(PathBuf),
    #[error("{}: was made for another {what}", file.display())]
    Foreign { file: PathBuf, what: &'static str },
    #[error("{}: another process holds it", .0.display())]
    Held(PathBuf),
    #[error("chain {partition}: height {height} is not above the guard's {guarded}")]
    NotAbove { partition: u32, height: u64, guarded: u64 },
}

/// Whose guard it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub channel: Digest,
    /// Hash of the attester's certificate.
    pub attester: Digest,
    pub partitions: u32,
}

/// The newest (height, header) promised for a chain.
pub type Promise = (u64, Digest);

#[derive(Debug)]
pub struct Guard {
    file: File,
    path: PathBuf,
    owner: Owner,
    counter: u64,
    promises: BTreeMap<u32, Promise>,
}

impl Guard {
    /// Makes the file, whole or not at all. Fails if it exists.
    pub fn init(path: &Path, owner: Owner) -> Result<(), GuardError> {
        let error = |doing| {
            move |cause| GuardError::Io {
                file: path.to_owned(),
                doing,
                cause,
            }
        };
        // A crash leaves this one behind; the next attempt begins it anew.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(error("make the file"))?;
        for slot in [0, 1] {
            let bytes = encode(&owner, slot, &BTreeMap::new());
            file.write_all_at(&bytes, slot * bytes.len() as u64)
                .map_err(error("write"))?;
        }
        file.sync_all().map_err(error("sync"))?;
        // Unlike a rename, a link never takes the place of a guard that is there.
        let made = std::fs::hard_link(&unfinished, path);
        std::fs::remove_file(&unfinished).map_err(error("remove the unfinished file"))?;
        made.map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => GuardError::Exists(path.to_owned()),
            _ => error("make the file")(cause),
        })?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(error("sync the directory"))
    }

    /// Makes the file unless this owner's intact guard is there. Dangerous where a volume may come back empty: whoever
    /// calls must know by other means that no guard was made for this key before. Whether it made one.
    pub fn init_if_absent(path: &Path, owner: Owner) -> Result<bool, GuardError> {
        match Guard::init(path, owner) {
            Ok(()) => Ok(true),
            // Its holder may be running: it is read, not opened.
            Err(GuardError::Exists(_)) => newest(path, owner).map(|_| false),
            Err(error) => Err(error),
        }
    }

    /// Opens what [`Guard::init`] made and holds it alone.
    pub fn open(path: &Path, owner: Owner) -> Result<Self, GuardError> {
        let error = |doing| {
            move |cause| GuardError::Io {
                file: path.to_owned(),
                doing,
                cause,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(error("open"))?;
        file.try_lock().map_err(|failure| match failure {
            TryLockError::WouldBlock => GuardError::Held(path.to_owned()),
            TryLockError::Error(cause) => error("lock")(cause),
        })?;
        let slot = newest(path, owner)?;
        Ok(Guard {
            file,
            path: path.to_owned(),
            owner,
            counter: slot.counter,
            promises: slot.promises,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn promise(&self, partition: u32) -> Option<Promise> {
        self.promises.get(&partition).copied()
    }

    /// The newest promise of every chain that has one.
    pub fn promises(&self) -> Vec<(u32, Promise)> {
        self.promises
            .iter()
            .map(|(chain, promise)| (*chain, *promise))
            .collect()
    }

    /// Promises never to sign other headers at or below these heights. Returns when it is on disk;
    /// only then may they be signed. On an error nothing may.
    pub fn promise_all(&mut self, newer: &[(u32, Promise)]) -> Result<(), GuardError> {
        let mut promises = self.promises.clone();
        for (partition, (height, header)) in newer {
            let before = promises.insert(*partition, (*height, *header));
            if let Some((guarded, _)) = before.filter(|(guarded, _)| guarded >= height) {
                return Err(GuardError::NotAbove {
                    partition: *partition,
                    height: *height,
                    guarded,
                });
            }
        }
        let counter = self.counter + 1;
        let bytes = encode(&self.owner, counter, &promises);
        let at = (counter % 2) * bytes.len() as u64;
        let path = &self.path;
        let error = |doing| {
            move |cause| GuardError::Io {
                file: path.clone(),
                doing,
                cause,
            }
        };
        self.file.write_all_at(&bytes, at).map_err(error("write"))?;
        self.file.sync_data().map_err(error("sync"))?;
        // Only now: after a failed write the same slot is written again.
        self.counter = counter;
        self.promises = promises;
        Ok(())
    }
}

/// The last slot that was written whole, if it is this owner's.
fn newest(path: &Path, owner: Owner) -> Result<Slot, GuardError> {
    let bytes = std::fs::read(path).map_err(|cause| GuardError::Io {
        file: path.to_owned(),
        doing: "read",
        cause,
    })?;
    let size = slot_bytes(owner.partitions);
    let slots = [bytes.get(..size), bytes.get(size..2 * size)];
    let newest = slots
        .iter()
        .flatten()
        .filter_map(|slot| decode(slot))
        .max_by_key(|slot| slot.counter);
    let Some(slot) = newest else {
        return Err(GuardError::Damaged(path.to_owned()));
    };
    let foreign = |what| {
        Err(GuardError::Foreign {
            file: path.to_owned(),
            what,
        })
    };
    if slot.channel != owner.channel {
        return foreign("channel");
    }
    if slot.attester != owner.attester {
        return foreign("attester");
    }
    Ok(slot)
}

/// Room for every data partition and the control chain, so that the file never grows.
fn slot_bytes(partitions: u32) -> usize {
    HEAD_BYTES + (partitions as usize + 1) * CHAIN_BYTES + 32
}

fn encode(owner: &Owner, counter: u64, promises: &BTreeMap<u32, Promise>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(slot_bytes(owner.partitions));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&owner.channel);
    bytes.extend_from_slice(&owner.attester);
    bytes.extend_from_slice(&counter.to_be_bytes());
    bytes.extend_from_slice(&(owner.partitions + 1).to_be_bytes());
    for partition in (0..owner.partitions).chain([CONTROL]) {
        let promise = promises.get(&partition);
        bytes.extend_from_slice(&partition.to_be_bytes());
        bytes.extend_from_slice(&EPOCH);
        bytes.extend_from_slice(&promise.map_or(0, |(height, _)| height + 1).to_be_bytes());
        bytes.extend_from_slice(&promise.map_or([0; 32], |(_, header)| *header));
    }
    let hash = sha256(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

struct Slot {
    channel: Digest,
    attester: Digest,
    counter: u64,
    promises: BTreeMap<u32, Promise>,
}

/// `None`: torn or no guard.
fn decode(bytes: &[u8]) -> Option<Slot> {
    let (body, hash) = bytes.split_last_chunk::<32>()?;
    if sha256(body) != *hash {
        return None;
    }
    let body = body.strip_prefix(MAGIC)?;
    let (channel, body) = body.split_first_chunk::<32>()?;
    let (attester, body) = body.split_first_chunk::<32>()?;
    let (counter, body) = body.split_first_chunk::<8>()?;
    let (_, body) = body.split_first_chunk::<4>()?;
    let mut promises = BTreeMap::new();
    for chain in body.as_chunks::<CHAIN_BYTES>().0 {
        let (partition, rest) = chain.split_first_chunk::<4>()?;
        let (heights, header) = rest.strip_prefix(&EPOCH)?.split_first_chunk::<8>()?;
        if let Some(height) = u64::from_be_bytes(*heights).checked_sub(1) {
            promises.insert(u32::from_be_bytes(*partition), (height, header.try_into().ok()?));
        }
    }
    Some(Slot {
        channel: *channel,
        attester: *attester,
        counter: u64::from_be_bytes(*counter),
        promises,
    })
}

#[cfg(test)]
mod tests;
