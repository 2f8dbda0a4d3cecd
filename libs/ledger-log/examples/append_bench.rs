//! How fast appends are: one at a time (latency), then a window of them (throughput), then from the
//! append to a reader. Starts a broker of its own in a temporary directory, or uses `--kafka HOST:PORT`.
//!
//! `cargo run --release -p medledger-ledger-log --example append_bench -- [--kafka HOST:PORT] [--bytes N]`
#![allow(clippy::print_stdout)]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use ledger_log::{
    Log, TopicPartition, TopicSpec,
    kafka::{KafkaLog, KafkaSettings},
    local::{LocalKafka, LocalKafkaSettings},
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let mut bytes = 20_000;
    let mut address = None;
    let mut brokers = 1;
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--kafka" => address = Some(value),
            "--bytes" => bytes = value.parse()?,
            "--brokers" => brokers = value.parse()?,
            _ => return Err("--kafka HOST:PORT, --brokers N, --bytes N".into()),
        }
    }
    let directory = std::env::temp_dir().join(format!("append-bench-{}", std::process::id()));
    let local = match &address {
        Some(_) => None,
        None => {
            let begin = Instant::now();
            let settings = LocalKafkaSettings {
                directory: directory.clone(),
                brokers,
                port: None,
            };
            let kafka = LocalKafka::start(settings).await?;
            println!(
                "Kafka with {brokers} brokers started in {:.1} s",
                begin.elapsed().as_secs_f64()
            );
            Some(kafka)
        }
    };
    let servers = local
        .as_ref()
        .map_or_else(|| address.into_iter().collect(), LocalKafka::bootstrap);
    let outcome = measure(servers, bytes).await;
    if let Some(kafka) = local {
        kafka.stop().await?;
        std::fs::remove_dir_all(directory)?;
    }
    outcome
}

async fn measure(servers: Vec<String>, bytes: usize) -> Outcome {
    let log = KafkaLog::open(&KafkaSettings::new(servers))?;
    let topic = format!("bench-{}", std::process::id());
    let spec = TopicSpec {
        name: topic.as_str().into(),
        partitions: 4,
        record_bytes_max: 1 << 20,
        flush_every_record: false,
    };
    log.ensure(&[spec], true).await?;
    let to = TopicPartition {
        topic: topic.as_str().into(),
        partition: 0,
    };
    idle(&log, &to).await?;
    for round in ["cold", "warm"] {
        one_at_a_time(&log, &to, bytes, round).await?;
    }
    for bytes in [bytes, 100_000] {
        windowed(&log, &to, bytes).await?;
    }
    Ok(())
}

/// CPU of this process while readers wait for nothing.
async fn idle(log: &KafkaLog, to: &TopicPartition) -> Outcome {
    let mut readers = Vec::new();
    for partition in 0..4 {
        readers.push(
            log.read(
                &TopicPartition {
                    partition,
                    ..to.clone()
                },
                0,
            )
            .await?,
        );
    }
    let before = cpu_ticks()?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let waits = readers.iter_mut().map(|reader| reader.next(Duration::from_secs(1)));
        futures::future::try_join_all(waits).await?;
    }
    let percent = (cpu_ticks()? - before) as f64 / begin.elapsed().as_secs_f64();
    println!("idle, four readers: {percent:.1} % of a core");
    Ok(())
}

/// User and system time in hundredths of a second.
fn cpu_ticks() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

async fn one_at_a_time(log: &KafkaLog, to: &TopicPartition, bytes: usize, round: &str) -> Outcome {
    let (_, high) = log.bounds(to).await?;
    let mut reader = log.read(to, high).await?;
    let mut acknowledged = Histogram::<u64>::new(3)?;
    let mut read = Histogram::<u64>::new(3)?;
    for _ in 0..500 {
        let begin = Instant::now();
        let append = log.append(to, Bytes::from(vec![7; bytes]));
        let acknowledge = async { append.await.map(|_| begin.elapsed()) };
        let arrive = async {
            while reader.next(Duration::from_secs(5)).await?.is_empty() {}
            Ok::<_, ledger_log::ReadError>(begin.elapsed())
        };
        let (ack, arrival) = futures::join!(acknowledge, arrive);
        acknowledged.record(ack?.as_micros() as u64)?;
        read.record(arrival?.as_micros() as u64)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (what, histogram) in [("acknowledged", &acknowledged), ("read", &read)] {
        println!(
            "{bytes} B one at a time, {round}, {what}: p50 {:.2} ms, p99 {:.2} ms",
            histogram.value_at_quantile(0.5) as f64 / 1e3,
            histogram.value_at_quantile(0.99) as f64 / 1e3
        );
    }
    Ok(())
}

async fn windowed(log: &KafkaLog, to: &TopicPartition, bytes: usize) -> Outcome {
    let (_, high) = log.bounds(to).await?;
    let count = (400_000_000 / bytes).min(20_000);
    let begin = Instant::now();
    let mut window = VecDeque::new();
    for _ in 0..count {
        if window.len() * bytes >= 8_000_000
            && let Some(append) = window.pop_front()
        {
            let _: u64 = futures::FutureExt::map(append, |outcome: Result<u64, _>| outcome).await?;
        }
        window.push_back(log.append(to, Bytes::from(vec![7; bytes])));
    }
    for append in window {
        append.await?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    println!(
        "{bytes} B in a window of 8 MB: {rate:.0} appends/s, {:.0} MB/s",
        rate * bytes as f64 / 1e6
    );
    let mut reader = log.read(to, high).await?;
    let begin = Instant::now();
    let mut read = 0;
    while read < count {
        read += reader.next(Duration::from_secs(5)).await?.len();
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{bytes} B read back: {rate:.0} records/s, {:.0} MB/s",
        rate * bytes as f64 / 1e6
    );
    Ok(())
}
