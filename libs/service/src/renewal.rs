//! A renewed certificate. The process that has the old one finds the new pair in its identity's directory and ends, so
//! that whoever keeps it running starts it with the new one.
//!
//! ```text
//! cert.pem, key.pem, every second ─┬─ the same ───→ nothing
//!                                  ├─ a bad pair ─→ degraded, the old one goes on
//!                                  └─ a good pair → after a random delay: leave, drain, end without an error
//! ```
//! Nothing that is signed or open has to change its key in the middle, and a start is what is rehearsed every day.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Digest, sha256};
use tokio::time::Instant;

use crate::health::{Check, Health};
use crate::identity::{self, Identity};
use crate::tasks::{OnFailure, Tasks};
use crate::tls::{Refusal, Trust};

/// Two small files, as often as the revocation lists.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the pair in the directory cannot take the place of ours.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    Load(#[from] identity::Error),
    #[error("{}: is of {found}, this process is {own}'s", directory.display())]
    Organisation {
        directory: PathBuf,
        found: String,
        own: String,
    },
    #[error("{}: {cause}", directory.display())]
    Refused { directory: PathBuf, cause: Refusal },
}

struct Renewal {
    trust: Arc<Trust>,
    directory: PathBuf,
    check: Check,
    spread: Duration,
}

/// Looks into `directory`, where the identity was read, for another pair of the same role and organisation that
/// members would accept now. A process that finds one leaves within `spread`, and earlier if its own certificate ends.
pub fn watch(tasks: &Tasks, health: &Health, trust: &Arc<Trust>, directory: PathBuf, spread: Duration) {
    let renewal = Renewal {
        trust: Arc::clone(trust),
        directory,
        check: health.check("identity"),
        spread,
    };
    renewal.check.ok();
    tasks.spawn("renewal", OnFailure::StopProcess, renewal.run(tasks.clone()));
}

impl Renewal {
    async fn run(self, tasks: Tasks) {
        // The new pair, and when we go for it.
        let mut due: Option<(Digest, Instant)> = None;
        loop {
            due = self.look(due);
            if due.is_some_and(|(_, at)| at <= Instant::now()) {
                tracing::info!("the certificate was renewed: ending, to be started again with the new one");
                return tasks.leave();
            }
            if tokio::time::timeout(LOOK_EVERY, tasks.token().cancelled())
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    fn look(&self, due: Option<(Digest, Instant)>) -> Option<(Digest, Instant)> {
        match self.find() {
            Ok(None) => {
                self.check.ok();
                None
            }
            Ok(Some(found)) => {
                self.check.ok();
                let found = sha256(found.certificate_der());
                if due.is_some_and(|(known, _)| known == found) {
                    return due;
                }
                let delay = self.delay();
                tracing::info!(?delay, "the certificate is renewed: this process will end");
                Some((found, Instant::now() + delay))
            }
            Err(bad) => {
                self.check
                    .degraded(format!("the renewed certificate is not taken: {bad}"));
                None
            }
        }
    }

    /// The pair in the directory, if it is another one than ours.
    fn find(&self) -> Result<Option<Identity>, Bad> {
        let own = self.trust.identity();
        let found = Identity::load_as(own.certificate.role, &self.directory)?;
        if found.certificate_der() == own.certificate_der() {
            return Ok(None);
        }
        if found.msp_id() != own.msp_id() {
            return Err(Bad::Organisation {
                directory: self.directory.clone(),
                found: found.msp_id().to_owned(),
                own: own.msp_id().to_owned(),
            });
        }
        match self.trust.judge(&found.certificate, crate::time::unix_s()) {
            Ok(()) => Ok(Some(found)),
            Err(cause) => Err(Bad::Refused {
                directory: self.directory.clone(),
                cause,
            }),
        }
    }

    /// Up to the whole spread, so that the replicas of an organisation do not all go at once.
    fn delay(&self) -> Duration {
        let left_s = self.trust.identity().certificate.not_after - crate::time::unix_s();
        let left = Duration::from_secs(u64::try_from(left_s).unwrap_or(0));
        let mut random = [0; 4];
        // Without randomness half the time is as good.
        let share = aws_lc_rs::rand::fill(&mut random)
            .map_or(0.5, |()| f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX));
        self.spread.min(left).mul_f64(share)
    }
}
