//! Where a partition starts.

use protocol::{code::Code, ledger::Marker, testing::TestNet};

use crate::committer::model::Partition;

fn net() -> TestNet {
    TestNet::new(&["HospitalA", "HospitalB"], 1)
}

#[test]
fn before_the_marker_nothing_is_judged() {
    let mut partition = Partition::new(net(), 0);
    let net = partition.net.clone();
    let tx = net.tx("patient").write(b"a", b"1").build();
    let mut garbage = tx.clone();
    garbage.bytes = b"garbage".to_vec();
    assert_eq!(partition.block(&[&tx, &garbage]), [Code::NotStarted, Code::NotStarted]);
    assert!(partition.maps.state.is_empty());
    let empty = partition.maps.digest(None, net.channel.config_digest);
    assert_eq!(partition.position.lattice.digest(), empty);
}

#[test]
fn only_a_marker_that_cites_the_genesis_starts_it() {
    let mut partition = Partition::new(net(), 0);
    let net = partition.net.clone();
    let marker = net.genesis_place().marker();
    for wrong in [
        Marker {
            control_height: marker.control_height + 1,
            ..marker.clone()
        },
        Marker {
            control_header: vec![1; 32],
            ..marker.clone()
        },
        Marker {
            sequence: 1,
            ..marker.clone()
        },
        Marker {
            attestations: vec![b"x".to_vec()],
            ..marker.clone()
        },
    ] {
        partition.push(&net.marker_block_of(0, wrong));
        assert_eq!(partition.position.started, None);
    }
    let height = partition.position.next_height();
    partition.push(&net.marker_block(0));
    assert_eq!(partition.position.started, Some(height));
    let digest = partition.maps.digest(Some(height), net.channel.config_digest);
    assert_eq!(partition.position.lattice.digest(), digest);
}

#[test]
fn later_markers_are_no_ops() {
    let mut partition = Partition::started(net(), 0);
    let net = partition.net.clone();
    let digest = partition.position.lattice.digest();
    let marker = Marker {
        sequence: 1,
        ..net.genesis_place().marker()
    };
    for raw in [net.marker_block(0), net.marker_block_of(0, marker)] {
        let changes = partition.push(&raw);
        assert_eq!(changes.header.state_digest, digest);
        assert_eq!(partition.position.started, Some(0));
    }
}

#[test]
fn any_bytes_are_a_block() {
    let mut partition = Partition::started(net(), 0);
    let net = partition.net.clone();
    let (_, before) = partition.snapshot();
    let of_other_partition = net.block(1, &[]);
    let by_a_peer = net.sign_block(net.identity("HospitalA", "peer0"), &net.empty_block(0));
    let mut altered = net.block(0, &[]);
    *altered.last_mut().expect("bytes") ^= 1;
    let mut previous = before;
    for raw in [
        &b""[..],
        b"garbage",
        &[0; 4_000_000],
        &of_other_partition,
        &by_a_peer,
        &altered,
    ] {
        let changes = partition.push(raw);
        assert_eq!(changes.header.previous, previous);
        assert!(changes.leaves.is_empty());
        previous = changes.hash;
    }
}
