//! Data and guard on volumes as Kubernetes mounts them: not empty, and owned by a group.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use crate::world::{Peer, World, soon};

const ONE: &str = "HospitalA";

/// A file system's root: it has a directory that nobody may read.
fn mount(at: &Path) {
    fs::create_dir(at).expect("made");
    let lost = at.join("lost+found");
    fs::create_dir(&lost).expect("made");
    fs::set_permissions(lost, Permissions::from_mode(0o000)).expect("mode");
    give_to_group(at);
}

/// What `fsGroup` does at every mount.
fn give_to_group(at: &Path) {
    let metadata = fs::symlink_metadata(at).expect("there");
    let more = if metadata.is_dir() { 0o2770 } else { 0o660 };
    let mode = metadata.permissions().mode() | more;
    fs::set_permissions(at, Permissions::from_mode(mode)).expect("mode");
    if metadata.is_dir() {
        for entry in fs::read_dir(at).expect("readable") {
            give_to_group(&entry.expect("an entry").path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_and_guard_may_lie_on_mounted_volumes() {
    let world = World::new(&[ONE], 1).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let (data, guards) = (directory.path().join("data"), directory.path().join("guards"));
    mount(&data);
    mount(&guards);
    let guard = world.init_guard(ONE, &guards);
    let mut directory = directory;
    for _ in 0..3 {
        let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
        let height = world.block(0, &[]);
        peer.reached(0, height).await;
        assert!(peer.ledger.attested_reached(0, height, soon()).await);
        directory = peer.end().await;
        give_to_group(&data);
        give_to_group(&guards);
    }
}
