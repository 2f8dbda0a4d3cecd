//! Expiry, revocation, height bounds: what `validate` leaves to the door.

use super::*;

#[test]
fn certificates_outside_their_validity() {
    let door = door();
    let hospital = door.net.organisation("HospitalA");
    let expired = Issue {
        not_after: NOW_S - 1,
        ..Issue::default()
    };
    let future = Issue {
        not_before: NOW_S + 1,
        ..Issue::default()
    };
    for issue in [expired, future] {
        let client = hospital.issue(Role::Client, "late", issue.clone());
        let tx = door.net.tx("patient-1").client(&client).build();
        door.refuses_tx(&tx, Code::CertificateExpired, "proposal.creator", "the certificate");
        let peer = hospital.issue(Role::Peer, "late", issue);
        let tx = door.net.tx("patient-1").endorsers(&[&peer]).build();
        door.refuses_tx(
            &tx,
            Code::CertificateExpired,
            "endorsements.certificate",
            "the certificate",
        );
    }
}

#[test]
fn certificates_revoked_by_a_list_or_on_the_ledger() {
    let serial = |name| protocol::testing::serial_of(1, "HospitalB", name);
    let mut revoked = vec![serial("client0"), serial("peer0")];
    revoked.sort();
    let spec = Spec {
        revoked: BTreeMap::from([("HospitalB".to_owned(), revoked)]),
        ..Spec::default()
    };
    let door = door_with(spec, Quotas::default(), |net| {
        let hospital = net.organisation("HospitalA");
        let list = hospital.crl(&[hospital.identity("client1"), hospital.identity("peer1")]);
        vec![net.channel.members.crl(&list).expect("a list")]
    });
    let (client, endorser) = ("proposal.creator", "endorsements.certificate");
    door.admit(request(&door.net.tx("patient-1").build()))
        .expect("not revoked");
    let tx = door.net.tx("patient-1").client(door.id("client1")).build();
    door.refuses_tx(&tx, Code::Revoked, client, "the certificate is on its organisation's");
    let tx = door.net.tx("patient-1").endorsers(&[door.id("peer1")]).build();
    door.refuses_tx(&tx, Code::Revoked, endorser, "the certificate is on its organisation's");
    let tx = door
        .net
        .tx("patient-1")
        .client(door.net.identity("HospitalB", "client0"))
        .build();
    door.refuses_tx(
        &tx,
        Code::Revoked,
        client,
        "UNKNOWN_CREATOR: the certificate is revoked",
    );
    let tx = door
        .net
        .tx("patient-1")
        .endorsers(&[door.net.identity("HospitalB", "peer0")])
        .build();
    door.refuses_tx(
        &tx,
        Code::Revoked,
        endorser,
        "UNKNOWN_ENDORSER: the certificate is revoked",
    );
}

#[test]
fn a_height_bound_that_has_passed() {
    let door = door();
    let tx = door.net.tx("patient-1").height_bound(10).build();
    door.admission.reached(tx.partition, 10);
    door.admit(request(&tx)).expect("it may still stand at height 10");
    door.admission.reached(tx.partition, 11);
    door.admission.reached(tx.partition, 3);
    door.refuses_tx(&tx, Code::Expired, "proposal.height_bound", "HEIGHT_BOUND");
}
