//! One gateway's events of one partition, for as long as the load lasts: when the stream breaks it goes on from
//! where it was, and hands out nothing twice.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use service::{Code, Problem, rpc};
use tonic::Streaming;

use super::Shared;
use crate::{
    chaos::history::{Place, TxId, What},
    client::Client,
    network::spec::RECORDS,
};

/// Before a stream that broke is opened again.
const OPEN_AGAIN: Duration = Duration::from_millis(250);
/// Under this load every partition has events all the time; a stream without any is opened again.
const SILENT: Duration = Duration::from_secs(10);

/// Where a stream is.
struct At {
    partition: u32,
    from: u64,
    last: Option<Place>,
}

impl At {
    /// The height to go on from: the last block again, for it may have had more.
    fn resume(&self) -> u64 {
        self.last.map_or(self.from, |last| last.height)
    }
}

/// Never ends by itself; an error: the history cannot be written.
pub async fn follow(shared: Arc<Shared>, client: Arc<Client>, gateway: usize, partition: u32, from: u64) -> Result<()> {
    let mut at = At {
        partition,
        from,
        last: None,
    };
    loop {
        let broke = match open(&client, &at).await {
            Ok(stream) => hand_out(&shared, gateway, &mut at, stream).await?,
            Err(problem) => problem,
        };
        let word = broke.code.as_str().to_owned();
        shared.recorder.enter(What::Broke {
            gateway,
            partition,
            word,
        })?;
        tokio::time::sleep(OPEN_AGAIN).await;
    }
}

async fn open(client: &Client, at: &At) -> Result<Streaming<rpc::EventsReply>, Problem> {
    let request = rpc::EventsRequest {
        partition: at.partition,
        from_height: at.resume(),
        contract: RECORDS.to_owned(),
    };
    let mut gateway = client.session.gateway();
    match tokio::time::timeout(SILENT, gateway.events(request)).await {
        Ok(opened) => Ok(opened?.into_inner()),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Problem {
    Problem::new(Code::DeadlineExceeded, "the stream is silent")
}

/// Until the stream breaks: why. An error: the history cannot be written.
async fn hand_out(
    shared: &Shared,
    gateway: usize,
    at: &mut At,
    mut stream: Streaming<rpc::EventsReply>,
) -> Result<Problem> {
    loop {
        let event = match tokio::time::timeout(SILENT, stream.message()).await {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) => return Ok(Problem::unavailable("the stream ended")),
            Ok(Err(status)) => return Ok(status.into()),
            Err(_) => return Ok(silent()),
        };
        let place = Place {
            partition: event.partition,
            height: event.height,
            index: event.index,
        };
        // The block it was in comes again after a break.
        if at.last.is_some_and(|last| place <= last) {
            continue;
        }
        let Some(tx_id) = protocol::hash::digest(&event.tx_id) else {
            return Ok(Problem::new(Code::BadEncoding, "a tx_id is not of 32 bytes"));
        };
        at.last = Some(place);
        shared.progress.event();
        shared.recorder.enter(What::Event {
            gateway,
            place,
            tx_id: TxId(tx_id),
        })?;
    }
}
