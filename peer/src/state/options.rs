//! What all databases of a process share, and how each is tuned. Five peers fit a laptop.

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Env, Options, WriteBufferManager,
};

use super::{StateError, disk};

/// Column families besides `default`.
pub(super) const STATE: &str = "state";
pub(super) const POLICIES: &str = "policies";
pub(super) const HISTORY: &str = "history";
pub(super) const TX: &str = "tx";
pub(super) const BLOCKS: &str = "blocks";
pub(super) const META: &str = "default";
pub(super) const FAMILIES: [&str; 6] = [META, STATE, POLICIES, HISTORY, TX, BLOCKS];

/// Sizes an operator may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// Blocks of all partitions' tables kept in memory.
    pub block_cache_bytes: usize,
    /// A partition writes its memory to disk when so much is new…
    pub flush_bytes: usize,
    /// …or after so long: both bound the replay after a crash.
    pub flush_interval_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            block_cache_bytes: 64 << 20,
            flush_bytes: 16 << 20,
            flush_interval_ms: 10_000,
        }
    }
}

/// What the databases of a process share.
pub struct Store {
    directory: PathBuf,
    env: Env,
    cache: Cache,
    write_buffers: WriteBufferManager,
    pub tuning: Tuning,
}

impl Store {
    /// `directory` holds a database per partition and one of the control chain.
    pub fn new(directory: &Path, tuning: Tuning) -> Result<Self, StateError> {
        std::fs::create_dir_all(directory).map_err(|cause| StateError::Disk {
            doing: "make the data directory",
            cause: cause.to_string(),
        })?;
        let mut env = Env::new().map_err(disk("open the environment"))?;
        env.set_background_threads(2);
        env.set_high_priority_background_threads(1);
        Ok(Store {
            directory: directory.to_owned(),
            env,
            cache: Cache::new_lru_cache(tuning.block_cache_bytes),
            // A backstop over all partitions; each flushes by itself long before. No stalling.
            write_buffers: WriteBufferManager::new_write_buffer_manager(4 * tuning.flush_bytes, false),
            tuning,
        })
    }

    pub(super) fn partition_directory(&self, partition: u32) -> PathBuf {
        self.directory.join(format!("partition-{partition}"))
    }

    pub(super) fn control_directory(&self) -> PathBuf {
        self.directory.join("control")
    }

    pub(super) fn open(&self, directory: &Path) -> Result<DB, StateError> {
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, self.family(name)));
        DB::open_cf_descriptors(&self.process(), directory, families).map_err(disk("open a partition"))
    }

    pub(super) fn process(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_env(&self.env);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(3);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_max_manifest_file_size(16 << 20);
        // Verified blocks are what the lattice scrub compares; a file's own checksums come first.
        options.set_paranoid_checks(true);
        options
    }

    fn family(&self, name: &str) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(5);
        let mut options = Options::default();
        if matches!(name, TX | STATE | POLICIES) {
            table.set_bloom_filter(10.0, false);
            // A filter before the memory table too: most look-ups find nothing.
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.02);
        }
        if matches!(name, STATE | POLICIES) {
            // A file of which half is deletes is compacted at once: ranges would walk over them.
            options.add_compact_on_deletion_collector_factory(256, 128, 0.5);
        }
        options.set_block_based_table_factory(&table);
        // tx holds hashes only, there is nothing to compress.
        options.set_compression_type(if name == TX {
            DBCompressionType::None
        } else {
            DBCompressionType::Lz4
        });
        // The partition flushes by its own count before a single table gets so large.
        options.set_write_buffer_size(2 * self.tuning.flush_bytes);
        options.set_max_write_buffer_number(4);
        options.set_arena_block_size(256 << 10);
        options.set_level_compaction_dynamic_level_bytes(true);
        options
    }
}
