//! A disk that was full. What stopped for it stays stopped in this process, and is served as it is; once there is room
//! the process ends, and whoever supervises it starts it again: it goes on from what is on the disk, and the log.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use service::Tasks;

use crate::{committer::chain::Stop, ledger::Ledger};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What must fit on the disk: some flushed blocks and the rows that follow.
const ROOM_BYTES: usize = 16 << 20;
const PROBE: &str = "room.probe";

/// An error ends the process.
pub(super) async fn watch(tasks: Tasks, ledger: Arc<Ledger>, data: PathBuf) -> Result<(), String> {
    while tokio::time::timeout(LOOK_EVERY, tasks.token().cancelled())
        .await
        .is_err()
    {
        let stops = ledger.chains.iter().map(|chain| chain.stopped());
        if !stops
            .chain([ledger.control.stopped()])
            .flatten()
            .any(|stop| is_full(&stop))
        {
            continue;
        }
        let data = data.clone();
        let probed = tokio::task::spawn_blocking(move || probe(&data)).await;
        match probed.map_err(|error| error.to_string())? {
            Ok(()) => {
                return Err("the disk was full and has room again: beginning again from what is on it".to_owned());
            }
            Err(error) => tracing::debug!(%error, "the disk is still full"),
        }
    }
    Ok(())
}

/// The operating system's words for ENOSPC and EDQUOT, which RocksDB hands on as text.
fn is_full(stop: &Stop) -> bool {
    let Stop::Disk(error) = stop else { return false };
    let text = error.to_string();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

fn probe(data: &Path) -> io::Result<()> {
    let file = data.join(PROBE);
    let written = File::create(&file).and_then(|mut probe| {
        probe.write_all(&vec![0xa5; ROOM_BYTES])?;
        probe.sync_all()
    });
    // Also what was written of it.
    let removed = std::fs::remove_file(&file);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateError;

    #[test]
    fn only_a_full_disk_is_one_and_room_is_what_can_be_written() {
        let disk = |cause: &str| {
            Stop::Disk(StateError::Disk {
                doing: "write a batch",
                cause: cause.to_owned(),
            })
        };
        assert!(is_full(&disk(
            "IO error: No space left on device: While appending to file: 1.sst"
        )));
        assert!(!is_full(&disk("Corruption: block checksum mismatch")));
        assert!(!is_full(&Stop::Mismatch { height: 1 }));
        let directory = tempfile::tempdir().expect("a directory");
        probe(directory.path()).expect("room");
        assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0);
        assert!(probe(&directory.path().join("absent")).is_err());
    }
}
