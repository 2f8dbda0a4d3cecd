//! Who may come, and how much.

use super::*;

#[test]
fn only_peers_broadcast() {
    let door = door();
    let request = request(&door.net.tx("patient-1").build());
    for name in ["client0", "admin", "orderer0"] {
        let caller = Caller::new(door.id(name).certificate.clone());
        let refused = door
            .admission
            .enter(&caller, &request)
            .err()
            .map(|problem| problem.code);
        assert_eq!(refused, Some(Code::PermissionDenied), "{name}");
    }
}

#[test]
fn quotas_are_of_a_peer_and_of_its_organisation() {
    let (peer, organisation) = (1 << 20, 3 << 19);
    let quotas = Quotas {
        peer_bytes_per_second: 1024,
        peer_burst_bytes: peer,
        organisation_bytes_per_second: 1024,
        organisation_burst_bytes: organisation,
    };
    let door = door_with(Spec::default(), quotas, |_| Vec::new());
    let request = BroadcastRequest {
        transaction: vec![0; 256 * 1024],
        ..BroadcastRequest::default()
    };
    let enter = |msp_id: &str, name: &str| {
        let caller = Caller::new(door.net.identity(msp_id, name).certificate.clone());
        door.admission.enter(&caller, &request).err()
    };
    assert!((0..4).all(|_| enter("HospitalA", "peer0").is_none()));
    let problem = enter("HospitalA", "peer0").expect("the peer's quota");
    assert_eq!(problem.code, Code::ResourceExhausted);
    assert!(
        problem.detail.contains("peer") && problem.retry_after.is_some(),
        "{problem}"
    );
    assert!((0..2).all(|_| enter("HospitalA", "peer1").is_none()));
    let problem = enter("HospitalA", "peer1").expect("the organisation's quota");
    assert!(
        problem.detail.contains("organisation") && problem.retry_after.is_some(),
        "{problem}"
    );
    assert!(enter("HospitalB", "peer0").is_none(), "others are not touched");
}

#[test]
fn a_full_room_is_said_at_once() {
    let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
    let admission = Admission::new(net.checker(), &Quotas::default(), 4 << 20, Arc::new(|_| false));
    let request = BroadcastRequest {
        transaction: vec![0; 256 * 1024],
        ..BroadcastRequest::default()
    };
    let [a, b] = ["HospitalA", "HospitalB"].map(|name| Caller::new(net.identity(name, "peer0").certificate.clone()));
    let mut held = Vec::new();
    let problem = loop {
        match admission.enter(&a, &request) {
            Ok(share) => held.push(share),
            Err(problem) => break problem,
        }
    };
    assert_eq!(
        (problem.code, problem.retry_after),
        (Code::ResourceExhausted, Some(FULL_RETRY))
    );
    assert!(admission.room().used() <= 2 << 20, "one organisation takes half");
    assert!(admission.enter(&b, &request).is_ok(), "the other finds room");
    held.clear();
    assert!(admission.enter(&a, &request).is_ok());
}
