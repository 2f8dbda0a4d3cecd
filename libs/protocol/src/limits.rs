//! Every limit, its unit in the name, its reason beside it, and the relations between limits compiled.

/// One call's arguments. They are never ordered, but every endorser holds them.
pub const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
/// One call's response. Travels beside the endorsement, never ordered.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Proposal, result and endorsements as ordered.
pub const TRANSACTION_BYTES_MAX: usize = 256 * 1024;
/// One certificate: P-256 or Ed25519 with attributes stays far below.
pub const CERTIFICATE_BYTES_MAX: usize = 4 * 1024;
/// Certificates one transaction cites: creator and endorsers.
pub const TRANSACTION_CERTIFICATES_MAX: usize = 64;
/// No certificate endorses a transaction twice.
pub const ENDORSEMENTS_MAX: usize = TRANSACTION_CERTIFICATES_MAX - 1;
/// Signature checks that one transaction can ask for: for every certificate it cites the issuer's and
/// the one made with it. Certificates that nobody cites are not looked at.
pub const TRANSACTION_SIGNATURES_MAX: usize = 2 * TRANSACTION_CERTIFICATES_MAX;
/// As many as a block can ask for, its orderer's included.
pub const BLOCK_SIGNATURES_MAX: usize = BLOCK_TRANSACTIONS_MAX * TRANSACTION_SIGNATURES_MAX + 2;
/// The body of a block.
pub const BLOCK_BYTES_MAX: usize = 1024 * 1024;
/// What surrounds the body in a record: the orderer's certificate and signature.
pub const BLOCK_OVERHEAD_BYTES_MAX: usize = 16 * 1024;
/// Transactions in a block: 500 keep a block's validation within tens of milliseconds.
pub const BLOCK_TRANSACTIONS_MAX: usize = 500;
/// `max.message.bytes` of `tx` and `attest`.
pub const KAFKA_RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A consumer's fetch holds at least one record, so that none can block it.
pub const FETCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A contract's component in the control chain.
pub const MODULE_BYTES_MAX: usize = 6 * 1024 * 1024;
/// `max.message.bytes` of `control`.
pub const CONTROL_RECORD_BYTES_MAX: usize = 7 * 1024 * 1024;
/// One gRPC message: a list between roles, or a module for a worker.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Items of one list between roles; ours have at most half. An empty item is two bytes on the wire and hundreds in
/// memory, so items are counted before a list is decoded.
pub const GRPC_LIST_ITEMS_MAX: usize = 1024;
/// Whatever else comes more than once in one gRPC message (certificates, attestations, steps of audit paths), counted
/// over the whole message before it is decoded: some megabytes at most.
pub const GRPC_ELEMENTS_MAX: usize = 64 * 1024;
/// The same between a peer and its own worker, where each item of a list may name as many keys as a call may read.
pub const GRPC_WORKER_ELEMENTS_MAX: usize = GRPC_LIST_ITEMS_MAX * READS_MAX;
/// What an item under way is charged for beside its bytes: structs, queue places and tasks, so that empty ones are
/// not free.
pub const ITEM_OVERHEAD_BYTES: usize = 256;
/// What a process holds for one account on all its streams: items under way, and replies that it has not read.
pub const HELD_BYTES_PER_ACCOUNT_MAX: usize = 128 * 1024 * 1024;
/// The same for all accounts together.
pub const HELD_BYTES_MAX: usize = 512 * 1024 * 1024;
const _: () = assert!(HELD_BYTES_PER_ACCOUNT_MAX < HELD_BYTES_MAX);

const _: () = assert!(
    TRANSACTION_BYTES_MAX + TRANSACTION_CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX < BLOCK_BYTES_MAX,
    "the largest transaction with its certificates fits a block of its own"
);
const _: () = assert!(BLOCK_BYTES_MAX + BLOCK_OVERHEAD_BYTES_MAX < KAFKA_RECORD_BYTES_MAX);
const _: () = assert!(KAFKA_RECORD_BYTES_MAX < FETCH_BYTES_MAX);
const _: () = assert!(MODULE_BYTES_MAX < CONTROL_RECORD_BYTES_MAX);
const _: () = assert!(CONTROL_RECORD_BYTES_MAX < FETCH_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(ARGUMENTS_BYTES_MAX < TRANSACTION_BYTES_MAX);

/// L: how far ahead of now a height bound may lie, and for how long a VALID tx_id is remembered.
pub const HEIGHTS_IN_TIME_MAX: u64 = 65_536;
/// W: how old an endorsement's snapshot may be.
pub const SNAPSHOT_AGE_MAX: u64 = 4_096;
/// Snapshots that a peer keeps for endorsement.
pub const SNAPSHOTS_KEPT: usize = 64;
const _: () = assert!(SNAPSHOT_AGE_MAX < HEIGHTS_IN_TIME_MAX);
const _: () = assert!((SNAPSHOTS_KEPT as u64) < SNAPSHOT_AGE_MAX);

/// An orderer appends at most this many blocks a second to a partition; the linger grows with load.
pub const BLOCKS_PER_SECOND_MAX: u32 = 100;
/// How far a client's clock may be from an endorser's.
pub const CLOCK_SKEW_MS_MAX: u64 = 15 * 60 * 1000;

/// Leaves under one signed root. Bounds the audit path to 10 hashes.
pub const SIGNATURE_LEAVES_MAX: usize = 1024;
pub const SIGNATURE_PATH_MAX: usize = 10;
const _: () = assert!(1 << SIGNATURE_PATH_MAX == SIGNATURE_LEAVES_MAX);

/// `[a-z][a-z0-9-]*`; never holds the 0x00 that ends it in a state key.
pub const CONTRACT_NAME_BYTES_MAX: usize = 64;
pub const FUNCTION_NAME_BYTES_MAX: usize = 64;
/// What a contract may append to its partition key.
pub const KEY_SUFFIX_BYTES_MAX: usize = 512;
/// Name, separator, partition key, suffix.
pub const KEY_BYTES_MAX: usize = CONTRACT_NAME_BYTES_MAX + 1 + 32 + KEY_SUFFIX_BYTES_MAX;
pub const VALUE_BYTES_MAX: usize = 128 * 1024;
pub const READS_MAX: usize = 1024;
/// Rows and bytes of values after which a page of a range, a history or a list ends, with one row at
/// least. Where a range's page ends is part of what endorsers sign: the same on all of them.
pub const PAGE_ROWS_MAX: usize = 256;
pub const PAGE_BYTES_MAX: usize = 512 * 1024;
/// Values that a call names by their keys at once: they travel to the worker in one message.
pub const NAMED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Ranges of one transaction. Each costs a seek, and one row more than it has entries at most.
pub const RANGES_MAX: usize = 16;
/// Entries of all ranges of one transaction: as many as 16 full pages of an endorser.
pub const RANGE_ENTRIES_MAX: usize = 4096;
pub const WRITES_MAX: usize = 256;
pub const EVENTS_MAX: usize = 32;
pub const EVENT_TYPE_BYTES_MAX: usize = 64;
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 16 * 1024;
const _: () = assert!(VALUE_BYTES_MAX < TRANSACTION_BYTES_MAX);
const _: () = assert!(PAGE_BYTES_MAX < RESPONSE_BYTES_MAX && VALUE_BYTES_MAX < PAGE_BYTES_MAX);
const _: () = assert!(READS_MAX <= RANGE_ENTRIES_MAX && RANGES_MAX * PAGE_ROWS_MAX <= RANGE_ENTRIES_MAX);
const _: () = assert!(NAMED_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX / 2);

/// Admins' signatures, and their certificates, that one genesis, config or module brings along: anyone who may write
/// to the control topic can send them, and everyone judges them at every start.
pub const ADMIN_SIGNATURES_MAX: usize = 128;
const _: () = assert!(ORGANISATIONS_MAX < ADMIN_SIGNATURES_MAX);

pub const POLICY_BYTES_MAX: usize = 4 * 1024;
pub const ORGANISATIONS_MAX: usize = 100;
pub const PARTITIONS_MAX: u32 = 1024;
pub const ATTESTATIONS_PER_RECORD_MAX: usize = 2048;
const _: () = assert!(
    ATTESTATIONS_PER_RECORD_MAX * (1 + SIGNATURE_PATH_MAX) < GRPC_ELEMENTS_MAX,
    "peers exchange as many as a record holds"
);
/// What one organisation's peers may exchange with a peer, both ways, each attestation with an item's overhead: some
/// thousand signatures a second, far more than honest peers have news.
pub const EXCHANGE_BYTES_PER_SECOND_MAX: u64 = 4 * 1024 * 1024;
/// At least what one request and its reply hold.
pub const EXCHANGE_BURST_BYTES_MAX: u64 = 16 * 1024 * 1024;
