//! The genesis of a channel: config, body, the admins' signatures; judged as every process will.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use prost::Message as _;
use protocol::{
    Digest,
    genesis::{Channel, RULES_VERSION},
    keys::ChannelSecret,
    ledger::{Config, Contract, FunctionPolicy, Genesis, GenesisBody, Organisation},
    sha256,
    signature::{Purpose, SigningKey, sign},
};
use rand::RngCore as _;

use super::spec::Spec;

/// What an organisation brings to the founding of a channel.
pub struct Founder {
    pub msp_id: String,
    /// DER, as are the other certificates.
    pub root: Vec<u8>,
    /// Serial numbers, ascending.
    pub revoked: Vec<Vec<u8>>,
    pub attester: Vec<u8>,
    pub admin: Vec<u8>,
    pub admin_key: SigningKey,
}

/// The bytes of a [`Genesis`] and the channel that they are. `modules`: digest by contract name.
pub fn build(
    spec: &Spec,
    founders: &[Founder],
    modules: &BTreeMap<String, Digest>,
    secret: &ChannelSecret,
) -> Result<(Vec<u8>, Channel)> {
    let mut nonce = vec![0; 32];
    rand::rng().fill_bytes(&mut nonce);
    let body = GenesisBody {
        nonce,
        config: Some(config(spec, founders, modules, secret)?),
    }
    .encode_to_vec();
    let id = sha256(&body);
    let mut genesis = Genesis {
        body,
        certificates: Vec::new(),
        signatures: Vec::new(),
    };
    for founder in founders {
        let hash = sha256(&founder.admin);
        let signatures = sign(&founder.admin_key, &hash, Purpose::Config, &id, &[&genesis.body])
            .with_context(|| format!("signing the genesis for {}", founder.msp_id))?;
        genesis.certificates.push(founder.admin.clone());
        genesis.signatures.extend(signatures);
    }
    let bytes = genesis.encode_to_vec();
    let channel = Channel::from_genesis(&bytes).context("the genesis that these settings give")?;
    Ok((bytes, channel))
}

fn config(
    spec: &Spec,
    founders: &[Founder],
    modules: &BTreeMap<String, Digest>,
    secret: &ChannelSecret,
) -> Result<Config> {
    let mut organisations: Vec<Organisation> = founders
        .iter()
        .map(|founder| Organisation {
            msp_id: founder.msp_id.clone(),
            root_certificate: founder.root.clone(),
            revoked: founder.revoked.clone(),
            attester: founder.attester.clone(),
        })
        .collect();
    organisations.sort_by(|a, b| a.msp_id.cmp(&b.msp_id));
    let contracts = spec.contracts.iter().map(|contract| {
        let digest = modules.get(&contract.name);
        let digest = digest.with_context(|| format!("the component of {} is missing", contract.name))?;
        let functions = contract.functions.iter();
        Ok(Contract {
            name: contract.name.clone(),
            digest: digest.to_vec(),
            policy: contract.policy.clone(),
            functions: functions
                .map(|(name, policy)| FunctionPolicy {
                    name: name.clone(),
                    policy: policy.clone(),
                })
                .collect(),
        })
    });
    let mut contracts = contracts.collect::<Result<Vec<_>>>()?;
    contracts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Config {
        sequence: 0,
        previous: Vec::new(),
        channel_name: spec.channel.clone(),
        rules_version: RULES_VERSION,
        partitions: spec.partitions,
        secret_hash: secret.hash().to_vec(),
        heights_in_time_max: spec.heights_in_time_max,
        snapshot_age_max: spec.snapshot_age_max,
        organisations,
        contracts,
        endorsement_policy: spec.endorsement_policy(),
        admin_policy: spec.admin_policy(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, KeyAlgorithm, ROOT_DAYS, Request};
    use protocol::identity::Role;

    fn founders(spec: &Spec) -> Vec<Founder> {
        let directory = tempfile::tempdir().expect("directory");
        let found = |msp_id: String| {
            let authority = Authority::create(&directory.path().join(&msp_id), &msp_id, KeyAlgorithm::P256, ROOT_DAYS);
            let authority = authority.expect("an authority");
            let issue = |role, name: &str| authority.issue(&Request::new(role, name)).expect("a certificate");
            let (admin, attester) = (issue(Role::Admin, "admin"), issue(Role::Peer, "attester"));
            let key = pem::parse(admin.key_pem).expect("pem");
            Founder {
                root: authority.root().der().to_vec(),
                attester: attester.certificate.der().to_vec(),
                admin: admin.certificate.der().to_vec(),
                admin_key: SigningKey::from_pkcs8(key.contents()).expect("key"),
                revoked: Vec::new(),
                msp_id,
            }
        };
        spec.organisation_names().into_iter().map(found).collect()
    }

    fn built(spec: &Spec, founders: &[Founder]) -> Result<(Vec<u8>, Channel)> {
        let modules = spec
            .contracts
            .iter()
            .map(|contract| (contract.name.clone(), [7; 32]))
            .collect();
        build(spec, founders, &modules, &ChannelSecret::new(&[9; 32]))
    }

    #[test]
    fn the_default_network_is_a_channel() {
        let spec = Spec::default();
        let (bytes, channel) = built(&spec, &founders(&spec)).expect("a channel");
        let again = Channel::from_genesis(&bytes).expect("as every process reads it");
        assert_eq!((again.id, again.partitions()), (channel.id, 2));
        assert_eq!(channel.organisations().count(), 4);
        assert_eq!(channel.contracts.len(), 3);
        assert_eq!(channel.config.secret_hash, ChannelSecret::new(&[9; 32]).hash());
    }

    #[test]
    fn two_networks_are_never_one_channel() {
        let spec = Spec::default();
        let founders = founders(&spec);
        let (one, other) = (
            built(&spec, &founders).expect("one").1,
            built(&spec, &founders).expect("other").1,
        );
        assert_ne!(one.id, other.id);
    }

    #[test]
    fn what_no_process_would_accept_is_refused_here() {
        let mut spec = Spec::default();
        let founders = founders(&spec);
        spec.endorsement_policy = "OR('Nobody.peer')".into();
        let error = format!("{:#}", built(&spec, &founders).expect_err("a policy of strangers"));
        assert!(error.contains("endorsement_policy"), "{error}");
        spec.endorsement_policy.clear();
        // Not all founders sign: two are too few for more than half of four.
        let mut few = founders;
        for founder in few.iter_mut().take(2) {
            founder.admin = founder.attester.clone();
        }
        let error = format!("{:#}", built(&spec, &few).expect_err("too few admins"));
        assert!(error.contains("signatures"), "{error}");
    }
}
