//! Ports for all processes of a network: one run of free ones.
//!
//! Never from the range that the system hands out to outgoing connections: a process that was
//! killed must find its port free when it comes back.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use anyhow::{Context as _, Result, ensure};
use rand::Rng as _;

/// Below Linux' `ip_local_port_range` (32768…).
const CHOICE: Range<u16> = 11_000..32_000;
const TRIES_MAX: usize = 200;

pub struct Ports {
    next: u16,
    end: u16,
}

impl Ports {
    /// `count` ports from `base` on, or from wherever they are free.
    pub fn reserve(base: Option<u16>, count: u16) -> Result<Self> {
        if let Some(base) = base {
            let end = base.checked_add(count).context("--base-port: too high")?;
            for port in base..end {
                ensure!(
                    is_free(port),
                    "port {port} is in use; choose another --base-port or leave it out"
                );
            }
            return Ok(Ports { next: base, end });
        }
        let mut random = rand::rng();
        for _ in 0..TRIES_MAX {
            let base = random.random_range(CHOICE.start..CHOICE.end - count);
            if (base..base + count).all(is_free) {
                return Ok(Ports {
                    next: base,
                    end: base + count,
                });
            }
        }
        anyhow::bail!("no {count} free ports in a row were found in {CHOICE:?}")
    }

    pub fn take(&mut self) -> Result<u16> {
        ensure!(self.next < self.end, "more ports are needed than were reserved");
        self.next += 1;
        Ok(self.next - 1)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_handed_out_once() {
        let mut ports = Ports::reserve(None, 3).expect("free ports");
        let taken: Vec<u16> = (0..3).map(|_| ports.take().expect("one")).collect();
        assert!(taken.windows(2).all(|pair| pair[1] == pair[0] + 1) && CHOICE.contains(&taken[0]));
        assert!(ports.take().is_err());
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = taken.local_addr().expect("address").port();
        let error = Ports::reserve(Some(port), 1).err().expect("in use");
        assert!(error.to_string().contains(&port.to_string()));
    }
}
