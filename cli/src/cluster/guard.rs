//! An attester's guard, from the founding's Secret to the attester's volume.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;

use super::api::Api;
use crate::{network::layout::write_whole, output::Output};

pub async fn run(api: &Api, secret: &str, to: &Path, output: Output) -> Result<()> {
    let seed = api.get(secret).await?["data"]["guard"]
        .as_str()
        .map(|text| BASE64.decode(text));
    let seed = seed
        .transpose()
        .with_context(|| format!("Secret {secret}: guard: is not base64"))?;
    let says = match (seed, to.exists()) {
        (None, true) => "the guard is where it belongs",
        // The peer says so in its health, and stays silent: whoever guessed might sign a second header for one height.
        (None, false) => "the guard is lost: this organisation attests nothing until the config names a new key",
        (Some(seed), there) => {
            if !there {
                write_whole(to, &seed, true)?;
                let directory = to.parent().context("a guard has a directory")?;
                fs::File::open(directory)
                    .and_then(|directory| directory.sync_all())
                    .with_context(|| directory.display().to_string())?;
            }
            api.forget(secret, "guard").await?;
            "the guard was moved to its volume"
        }
    };
    output.show(&json!({"guard": says}), || format!("{says}\n"))
}
