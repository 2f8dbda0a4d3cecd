//! The check after a load: everything acknowledged is on every peer exactly once, what was refused is
//! nowhere, every unknown outcome is the same on all and stays so, all headers agree, and the log read
//! from its genesis by nobody's peer comes to the same headers and state digests.
//!
//! The orderers are drained first, so that nothing can come any more: what is seen is final.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use medledger_cli::network::layout::Kind;
use nix::sys::signal::Signal;
use prost::Message as _;
use protocol::{CONTROL, Digest, code::Code, hash::digest, ledger::ReceiptContent, signature::Purpose};
use serde::Serialize;
use service::{
    Identity,
    rpc::{self, Finality},
};

use super::{
    PATIENCE, World, chain,
    client::{Client, End},
    load::Book,
};

/// What was found, once nothing is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub peers: usize,
    pub blocks: u64,
    pub valid: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub invalid: u64,
    pub unknown_there: u64,
    pub unknown_absent: u64,
    /// Unknown at first, then handed over once more under the same tx_id.
    pub retried: u64,
}

/// One partition as the first peer has it; the others are held against it.
struct Chain {
    blocks: Vec<rpc::BlockReply>,
}

/// Every chain of the channel, equal on all peers.
pub struct Ledger {
    chains: Vec<Chain>,
    /// VALID, and where.
    pub valid: HashMap<Digest, (u32, u64, u32)>,
}

impl World {
    /// All of it. Every process must run; afterwards the orderers have ended.
    pub async fn check(&self, book: &mut Book) -> Found {
        assert!(
            !book.acknowledged.is_empty(),
            "nothing was acknowledged, so nothing is shown: {:?}",
            book.words
        );
        let internal = book.words.get("internal");
        assert_eq!(internal, None, "a process called something its own defect");
        let retried = self.retry_unknown(book).await;
        self.drain().await;
        let ledger = self.ledger().await;
        let found = self.judge(book, &ledger).await;
        Found { retried, ..found }
    }

    /// Ends the orderers, each admitted transaction being appended or answered; then the log stands still.
    pub async fn drain(&self) {
        let orderers = self.names(Kind::Orderer);
        let running = orderers.iter().filter(|name| self.network.running(name).is_some());
        futures::future::join_all(running.map(|name| self.signal(name, Signal::SIGTERM))).await;
    }

    /// Reads every chain from every peer and holds them against each other and against the log itself.
    pub async fn ledger(&self) -> Ledger {
        let ends = self.ends().await;
        let peers = self.peers();
        let mut ledger = Ledger {
            chains: Vec::new(),
            valid: HashMap::new(),
        };
        for (partition, end) in (0u32..).zip(&ends) {
            ledger.chains.push(self.read(&peers[0], partition, *end).await);
        }
        for peer in &peers[1..] {
            for (partition, (first, end)) in (0u32..).zip(ledger.chains.iter().zip(&ends)) {
                self.compare(&peers[0], first, peer, partition, *end).await;
            }
        }
        ledger.count_valid();
        self.verify(&ends).await;
        ledger
    }

    async fn read(&self, peer: &str, partition: u32, end: u64) -> Chain {
        let mut blocks = Vec::new();
        self.each_block(peer, partition, end, |block| blocks.push(block)).await;
        Chain { blocks }
    }

    async fn compare(&self, first: &str, chain: &Chain, peer: &str, partition: u32, end: u64) {
        self.each_block(peer, partition, end, |block| {
            let expected = &chain.blocks[block.height as usize];
            let tell = || {
                format!(
                    "{first} and {peer} have different blocks {} in partition {partition}",
                    block.height
                )
            };
            assert_eq!(hex::encode(&block.header), hex::encode(&expected.header), "{}", tell());
            assert_eq!(block, *expected, "{}", tell());
        })
        .await;
    }

    /// Every block up to `end` as the peer serves it, once it has them; each follows the one before.
    async fn each_block(&self, peer: &str, partition: u32, end: u64, mut take: impl FnMut(rpc::BlockReply)) {
        self.reached(
            peer,
            &vec![0; partition as usize].into_iter().chain([end]).collect::<Vec<_>>(),
        )
        .await;
        let mut blocks = self.blocks(peer, partition, 0, end).await;
        let (mut next, mut previous) = (0, self.network.channel.id.to_vec());
        while next < end {
            let block = tokio::time::timeout(PATIENCE, blocks.message()).await;
            let block = block.unwrap_or_else(|_| panic!("{peer}: block {next} of partition {partition} does not come"));
            let block =
                block.unwrap_or_else(|status| panic!("{peer}: block {next} of partition {partition}: {status}"));
            let block = block.unwrap_or_else(|| panic!("{peer}: partition {partition} ends at {next}, not at {end}"));
            assert_eq!(block.height, next, "{peer}: partition {partition} has a gap");
            assert_eq!(
                block.previous, previous,
                "{peer}: block {next} of partition {partition} follows another"
            );
            (next, previous) = (next + 1, block.header.clone());
            take(block);
        }
    }

    /// The log from its genesis, with nothing but the genesis; and every peer's tip beside it.
    pub async fn verify(&self, ends: &[u64]) {
        let genesis = std::fs::read(self.network.layout.genesis()).expect("the genesis");
        let state = tempfile::tempdir().expect("a directory");
        let verified = verify(self, &genesis, state.path()).await;
        for peer in self.peers() {
            let reply = self.reached(&peer, ends).await;
            for expected in &verified {
                let known = chain(&reply, expected.partition);
                let which = if expected.partition == CONTROL {
                    "control".into()
                } else {
                    expected.partition.to_string()
                };
                assert_eq!(known.stopped, "", "{peer} stopped partition {which}");
                assert_eq!(known.blocks, expected.blocks, "{peer}: blocks of partition {which}");
                assert_eq!(
                    hex::encode(&known.header),
                    hex::encode(expected.header),
                    "{peer}: header of partition {which}, against the log read from its genesis"
                );
                assert_eq!(
                    hex::encode(&known.state_digest),
                    hex::encode(expected.state_digest),
                    "{peer}: state digest of partition {which}, against the log read from its genesis"
                );
            }
        }
    }

    /// Every second unknown outcome is settled by handing over the same intent again: it becomes VALID
    /// under the same tx_id, or is told why not.
    async fn retry_unknown(&self, book: &Book) -> u64 {
        let mut clients: HashMap<&str, Arc<Client>> = HashMap::new();
        let again: Vec<_> = book.unknown.iter().step_by(2).take(64).collect();
        for (peer, _) in &again {
            clients.entry(peer).or_insert_with(|| self.client(peer, "physician"));
        }
        let ends = again.iter().map(|(peer, signed)| {
            let client = clients.get(peer.as_str()).expect("just made").clone();
            async move {
                (
                    peer,
                    signed.tx_id,
                    client.submit(signed, Finality::Committed, PATIENCE).await,
                )
            }
        });
        for (peer, tx_id, end) in futures::future::join_all(ends).await {
            match end {
                End::Done(done) => assert_eq!(done.code, Code::Valid.word(), "{peer}: {} again", hex::encode(tx_id)),
                // Its height bound may have passed meanwhile.
                End::Refused(problem) if problem.code == service::Code::Expired => {}
                end => panic!("{peer}: {} handed over again: {end:?}", hex::encode(tx_id)),
            }
        }
        again.len() as u64
    }

    async fn judge(&self, book: &Book, ledger: &Ledger) -> Found {
        let peers = self.peers();
        for done in &book.acknowledged {
            let tx_id = hex::encode(done.tx_id);
            let place = ledger.valid.get(&done.tx_id);
            let level = if done.committed { "committed" } else { "ordered" };
            let found =
                place.unwrap_or_else(|| panic!("{tx_id} was acknowledged as {level} and is VALID nowhere: {done:?}"));
            if done.committed {
                assert_eq!(
                    *found,
                    (done.partition, done.height, done.index),
                    "{tx_id} is VALID at another place"
                );
            }
            self.check_receipt(done, ledger);
        }
        let mut seen = HashSet::new();
        for done in &book.acknowledged {
            assert!(
                seen.insert(done.tx_id),
                "{} was acknowledged twice",
                hex::encode(done.tx_id)
            );
        }
        for tx_id in &book.refused {
            assert!(
                !ledger.valid.contains_key(tx_id),
                "{} was refused and is VALID",
                hex::encode(tx_id)
            );
        }
        for (tx_id, problem) in &book.invalid {
            let valid = ledger.valid.contains_key(tx_id);
            assert!(
                !valid,
                "{} was called invalid ({problem}) and is VALID",
                hex::encode(tx_id)
            );
        }
        let mut found = Found {
            peers: peers.len(),
            blocks: ledger.chains.iter().map(|chain| chain.blocks.len() as u64).sum(),
            valid: ledger.valid.len() as u64,
            acknowledged: book.acknowledged.len() as u64,
            refused: book.words.values().sum::<u64>() - book.invalid.len() as u64,
            invalid: book.invalid.len() as u64,
            ..Found::default()
        };
        let clients: Vec<Arc<Client>> = peers.iter().map(|peer| self.client(peer, "physician")).collect();
        for (_, signed) in &book.unknown {
            let there = ledger.valid.contains_key(&signed.tx_id);
            *(if there {
                &mut found.unknown_there
            } else {
                &mut found.unknown_absent
            }) += 1;
            for client in &clients {
                let status = client
                    .status(&signed.tx_id, Finality::Unspecified, Duration::from_secs(10))
                    .await;
                let status = status.unwrap_or_else(|problem| panic!("{}: status: {problem}", client.peer()));
                let says = status.found && status.code == Code::Valid.word();
                let tx_id = hex::encode(signed.tx_id);
                assert_eq!(says, there, "{}: status of {tx_id} and its chain differ", client.peer());
            }
        }
        found
    }

    /// The receipt names the place where the transaction is, in the record that is there.
    fn check_receipt(&self, done: &super::load::Acknowledged, ledger: &Ledger) {
        let Some(receipt) = &done.receipt else { return };
        let tx_id = hex::encode(done.tx_id);
        let content = ReceiptContent::decode(&receipt.content[..]).expect("a receipt's content");
        assert_eq!(content.tx_id, done.tx_id, "the receipt is for another transaction");
        let block = &ledger.chains[content.partition as usize].blocks[content.height as usize];
        let there = block
            .transactions
            .get(content.index as usize)
            .map(|tx| tx.tx_id.as_slice());
        assert_eq!(there, Some(&done.tx_id[..]), "{tx_id} is not where its receipt says");
        assert_eq!(
            content.record_hash, block.record_hash,
            "{tx_id}: the receipt is for another record"
        );
        let signature = receipt.signature.as_ref().expect("a receipt is signed");
        let orderers = self
            .network
            .description
            .processes
            .iter()
            .filter(|process| process.kind == Kind::Orderer);
        let signer = orderers
            .filter_map(|process| Identity::load(&self.network.layout.join(&process.identity)).ok())
            .find(|identity| identity.hash()[..] == signature.certificate[..])
            .expect("a receipt's signer is an orderer of this network");
        protocol::signature::Verifier::new(1)
            .verify(
                &signer.certificate.public_key,
                Purpose::Receipt,
                &self.network.channel.id,
                &receipt.content,
                signature,
            )
            .unwrap_or_else(|error| panic!("{tx_id}: the receipt: {error}"));
    }
}

async fn verify(world: &World, genesis: &[u8], state: &Path) -> Vec<peer::VerifiedChain> {
    let log = Arc::new(world.log().clone());
    let verified = peer::verify(log, genesis, state, |_| {}).await;
    verified.expect("the log verifies from its genesis")
}

impl Ledger {
    fn count_valid(&mut self) {
        for (partition, chain) in (0u32..).zip(&self.chains) {
            for block in &chain.blocks {
                for (index, tx) in (0u32..)
                    .zip(&block.transactions)
                    .filter(|(_, tx)| tx.code == Code::Valid.word())
                {
                    let tx_id = digest(&tx.tx_id).expect("32 bytes");
                    let before = self.valid.insert(tx_id, (partition, block.height, index));
                    assert_eq!(
                        before,
                        None,
                        "{} is VALID twice, again at height {}",
                        hex::encode(tx_id),
                        block.height
                    );
                }
            }
        }
    }
}
