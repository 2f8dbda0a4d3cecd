//! What a client, or whoever sits between it and the endorsers, makes of a signed proposal.

use std::{sync::Arc, time::Duration};

use medledger_cli::{calls, network::spec::RECORDS, wallet};
use medledger_tests::network::{
    PATIENCE,
    client::{Client, End, Signed},
    doors::{Issuing, Validity},
};
use prost::Message as _;
use protocol::{
    ledger::{Kind, Proposal},
    limits::{ARGUMENTS_BYTES_MAX, CLOCK_SKEW_MS_MAX},
    sha256,
    signature::{Purpose, sign},
};
use serde_json::json;
use service::{
    Code, Identity, Problem, Role,
    rpc::{Call, Finality, Plan, SignedProposal},
};

use super::{FORMER, Here, unchanged};

/// A proposal in the making.
struct Intent {
    plan: Plan,
    call: Call,
    kind: Kind,
    signer: Arc<Identity>,
}

impl Intent {
    async fn new(here: &Here, call: Call) -> Intent {
        let plan = here.client.plan(&call, PATIENCE).await.expect("a plan");
        Intent {
            plan,
            call,
            kind: Kind::Submit,
            signer: here.client.session.identity.clone(),
        }
    }

    /// `before` changes what is signed, `after` what was signed.
    fn sign(self, before: impl FnOnce(&mut Proposal), after: impl FnOnce(&mut SignedProposal)) -> Signed {
        let channel = self.plan.channel.clone();
        let intent = wallet::propose(&self.signer, &self.plan, self.call, self.kind, 0);
        let mut proposal = Proposal::decode(&intent.proposal[..]).expect("own bytes");
        before(&mut proposal);
        let bytes = proposal.encode_to_vec();
        let channel = protocol::hash::digest(&channel).expect("32 bytes");
        let signatures = sign(
            &self.signer.signing_key,
            &self.signer.hash(),
            Purpose::Proposal,
            &channel,
            &[&bytes],
        );
        let mut signed = SignedProposal {
            signature: signatures.expect("a key signs").pop(),
            certificate: self.signer.certificate_der().to_vec(),
            salt: intent.salt.to_vec(),
            arguments: intent.arguments,
            proposal: bytes,
        };
        after(&mut signed);
        Signed {
            tx_id: sha256(&signed.proposal),
            proposal: signed,
        }
    }
}

async fn refused(client: &Client, name: &str, signed: &Signed) -> Problem {
    match client
        .submit(signed, Finality::Committed, Duration::from_secs(20))
        .await
    {
        End::Refused(problem) => problem,
        end => panic!("{name} ended with {end:?}"),
    }
}

fn nothing<T>(_: &mut T) {}

pub async fn run(here: &Here) {
    let directory = tempfile::tempdir().expect("a directory");
    let member = Issuing::member(&here.world, "HospitalA");
    let expired = member.issue(
        Role::Client,
        "expired-client",
        Validity::Over,
        &directory.path().join("expired"),
    );
    let early = member.issue(
        Role::Client,
        "early-client",
        Validity::NotYet,
        &directory.path().join("early"),
    );
    let strange = Issuing::stranger("Stranger").issue(
        Role::Client,
        "strange",
        Validity::Now,
        &directory.path().join("strange"),
    );
    let world = &here.world;
    let intent = || Intent::new(here, here.fresh());
    let by = |signer: Arc<Identity>| async move {
        Intent {
            signer,
            ..Intent::new(here, here.fresh()).await
        }
        .sign(nothing, nothing)
    };
    let other = here
        .client
        .plan(&here.fresh(), PATIENCE)
        .await
        .expect("a plan")
        .partition_key;
    let oversized = json!(["x".repeat(ARGUMENTS_BYTES_MAX)]).to_string().into_bytes();
    let number = here.existing().await;
    let query = Intent {
        call: calls::get(RECORDS, &number),
        ..Intent::new(here, calls::get(RECORDS, &number)).await
    };
    let cases: Vec<(&str, Signed, Code, &str)> = vec![
        (
            "changed arguments",
            intent().await.sign(nothing, |signed| signed.arguments[3] ^= 1),
            Code::ArgumentsChanged,
            "proposal.arguments_commitment",
        ),
        (
            "another salt",
            intent().await.sign(nothing, |signed| signed.salt[0] ^= 1),
            Code::ArgumentsChanged,
            "proposal.arguments_commitment",
        ),
        (
            "a short salt",
            intent().await.sign(nothing, |signed| signed.salt.truncate(31)),
            Code::InvalidArgument,
            "salt",
        ),
        (
            "no signature",
            intent().await.sign(nothing, |signed| signed.signature = None),
            Code::InvalidArgument,
            "signature",
        ),
        (
            "oversized arguments",
            intent().await.sign(nothing, |signed| signed.arguments = oversized),
            Code::TooLarge,
            "arguments",
        ),
        (
            "an oversized proposal",
            intent()
                .await
                .sign(nothing, |signed| signed.proposal = vec![1; 9 << 10]),
            Code::TooLarge,
            "proposal",
        ),
        (
            "a proposal that is none",
            intent().await.sign(nothing, |signed| signed.proposal = vec![0xff; 99]),
            Code::BadEncoding,
            "proposal",
        ),
        (
            "a query submitted as a transaction",
            Intent {
                kind: Kind::Query,
                ..intent().await
            }
            .sign(nothing, nothing),
            Code::WrongKind,
            "proposal.kind",
        ),
        (
            "a function that only reads, submitted",
            query.sign(nothing, nothing),
            Code::WrongKind,
            "",
        ),
        (
            "another channel",
            intent().await.sign(|proposal| proposal.channel[0] ^= 1, nothing),
            Code::WrongChannel,
            "proposal.channel",
        ),
        (
            "another epoch",
            intent().await.sign(|proposal| proposal.epoch = 1, nothing),
            Code::WrongChannel,
            "proposal.epoch",
        ),
        (
            "an unknown contract",
            intent()
                .await
                .sign(|proposal| proposal.contract = "unknown".into(), nothing),
            Code::UnknownContract,
            "contract",
        ),
        (
            "another version of the contract",
            intent()
                .await
                .sign(|proposal| proposal.contract_digest[0] ^= 1, nothing),
            Code::ContractChanged,
            "proposal.contract_digest",
        ),
        (
            "an unknown function",
            intent()
                .await
                .sign(|proposal| proposal.function = "unknown".into(), nothing),
            Code::UnknownFunction,
            "function",
        ),
        (
            "another patient's partition key",
            intent().await.sign(|proposal| proposal.partition_key = other, nothing),
            Code::WrongPartition,
            "proposal.partition_key",
        ),
        (
            "a height bound that has passed",
            intent().await.sign(|proposal| proposal.height_bound = 0, nothing),
            Code::Expired,
            "proposal.height_bound",
        ),
        (
            "a height bound too far ahead",
            intent()
                .await
                .sign(|proposal| proposal.height_bound = u64::MAX, nothing),
            Code::Expired,
            "proposal.height_bound",
        ),
        (
            "a clock far behind",
            intent()
                .await
                .sign(|proposal| proposal.client_time_ms -= 2 * CLOCK_SKEW_MS_MAX, nothing),
            Code::Expired,
            "proposal.client_time_ms",
        ),
        (
            "a clock far ahead",
            intent()
                .await
                .sign(|proposal| proposal.client_time_ms += 2 * CLOCK_SKEW_MS_MAX, nothing),
            Code::Expired,
            "proposal.client_time_ms",
        ),
        (
            "a proposal changed after it was signed",
            intent()
                .await
                .sign(nothing, |signed| changed(signed, |proposal| proposal.nonce[0] ^= 1)),
            Code::BadSignature,
            "client",
        ),
        (
            "a stranger's certificate",
            by(strange).await,
            Code::Unauthenticated,
            "proposal.creator",
        ),
        (
            "a certificate revoked in the genesis",
            by(world.identity("HospitalA", FORMER)).await,
            Code::Unauthenticated,
            "proposal.creator",
        ),
        (
            "an expired certificate",
            by(expired).await,
            Code::CertificateExpired,
            "",
        ),
        (
            "a certificate that is not valid yet",
            by(early).await,
            Code::CertificateExpired,
            "",
        ),
        (
            "an orderer's certificate",
            by(world.orderer()).await,
            Code::PermissionDenied,
            "proposal.creator",
        ),
        (
            "a peer's certificate without anybody behind it",
            by(world.identity("HospitalA", "peer0")).await,
            Code::PermissionDenied,
            "proposal.creator",
        ),
        (
            "a client that speaks for another",
            intent().await.sign(speaks_for_another, nothing),
            Code::PermissionDenied,
            "proposal.creator",
        ),
    ];
    for (name, signed, code, field) in cases {
        unchanged(here, name, async {
            let problem = refused(&here.client, name, &signed).await;
            assert_eq!(
                (problem.code, problem.field.as_str()),
                (code, field),
                "{name}: {problem}"
            );
            let status = here
                .client
                .status(&signed.tx_id, Finality::Unspecified, PATIENCE)
                .await
                .expect("a status");
            assert!(!status.found, "{name}: it is on the ledger: {status:?}");
        })
        .await;
    }
    unchanged(here, "calls that the contract refuses", contract(here)).await;
}

fn changed(signed: &mut SignedProposal, change: impl FnOnce(&mut Proposal)) {
    let mut proposal = Proposal::decode(&signed.proposal[..]).expect("own bytes");
    change(&mut proposal);
    signed.proposal = proposal.encode_to_vec();
}

fn speaks_for_another(proposal: &mut Proposal) {
    proposal.on_behalf_of = Some(protocol::ledger::OnBehalfOf {
        certificate: vec![1; 32],
        common_name: "somebody".into(),
        role: "client".into(),
        attributes: Vec::new(),
    });
}

/// Arguments as no program of ours sends them: the contract names field and rule, never the value.
async fn contract(here: &Here) {
    let nurse = here.world.client("peer0.HospitalA", "nurse");
    let cases: [(&Client, &str, Call, Code, &str); 5] = [
        (
            &here.client,
            "arguments that are no JSON",
            raw("not json"),
            Code::BadArguments,
            "arguments",
        ),
        (
            &here.client,
            "an argument missing",
            raw("[\"940220-1234\"]"),
            Code::BadArguments,
            "record",
        ),
        (
            &here.client,
            "a number that is none",
            raw("[\"hello\",{}]"),
            Code::BadArguments,
            "personalNumber",
        ),
        (
            &here.client,
            "nobody's record",
            calls::delete(RECORDS, "000101-0000", 1),
            Code::ContractRejected,
            "personalNumber",
        ),
        (
            &nurse,
            "a nurse who deletes",
            calls::delete(RECORDS, "000101-0000", 1),
            Code::ContractRejected,
            "practitioner_role",
        ),
    ];
    for (client, name, call, code, field) in cases {
        let (_, end) = client.send(call, Finality::Committed, Duration::from_secs(20)).await;
        let End::Refused(problem) = end else {
            panic!("{name} ended with {end:?}")
        };
        assert_eq!(
            (problem.code, problem.field.as_str()),
            (code, field),
            "{name}: {problem}"
        );
        assert!(
            !problem.detail.contains("hello") && !problem.detail.contains("000101"),
            "{name}: an error shows a value"
        );
    }
}

fn raw(arguments: &str) -> Call {
    Call {
        contract: RECORDS.into(),
        function: "createMedicalRecord".into(),
        arguments: arguments.as_bytes().to_vec(),
    }
}
