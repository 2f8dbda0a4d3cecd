//! The command line's client, as tests use it.

use std::{ops::Deref, time::Duration};

use medledger_cli::{client, session::Session};
use protocol::{Digest, code::Code};
use serde_json::Value;
use service::{
    Problem,
    rpc::{Call, Finality, Submission},
};

pub use client::{End, Signed};

pub struct Client(client::Client);

impl Deref for Client {
    type Target = client::Client;

    fn deref(&self) -> &client::Client {
        &self.0
    }
}

impl Client {
    pub fn new(session: Session) -> Self {
        Client(client::Client::new(session).expect("an address"))
    }

    /// A submit that must be judged VALID.
    pub async fn must(&self, call: Call) -> (Digest, Submission) {
        let function = call.function.clone();
        match self.send(call, Finality::Committed, super::PATIENCE).await {
            (Some(signed), End::Done(done)) if done.code == Code::Valid.word() => (signed.tx_id, done),
            (_, end) => panic!("{function} at {}: {end:?}", self.peer()),
        }
    }

    pub async fn evaluate(&self, call: Call, within: Duration) -> Result<Value, Problem> {
        let answer = self.0.evaluate(call, within).await?;
        Ok(serde_json::from_slice(&answer).expect("contracts answer JSON"))
    }
}
