//! The few calls of the Kubernetes API that are needed. A client library for all of it would double the build.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};

/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Who owns the fields that are applied.
const MANAGER: &str = "medledger-founding";

pub struct Api {
    client: Client,
    /// Of the pod's namespace, up to `/secrets`.
    secrets: String,
    token: String,
}

impl Api {
    /// As the pod's own service account.
    pub fn in_cluster() -> Result<Self> {
        let host = std::env::var("KUBERNETES_SERVICE_HOST")
            .context("KUBERNETES_SERVICE_HOST: is missing; this runs in a pod")?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let account = Path::new(ACCOUNT);
        let read = |name: &str| {
            fs::read_to_string(account.join(name)).with_context(|| account.join(name).display().to_string())
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(read("ca.crt")?.as_bytes()) {
            roots.add(root.context("ca.crt")?)?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Api {
            client: Client::builder()
                .tls_backend_preconfigured(tls)
                .timeout(ANSWER_WITHIN)
                .build()?,
            secrets: format!(
                "https://{host}:{port}/api/v1/namespaces/{}/secrets",
                read("namespace")?.trim()
            ),
            token: read("token")?.trim().to_owned(),
        })
    }

    /// Secrets with a label.
    pub async fn list(&self, label: &str) -> Result<Vec<Value>> {
        let request = self.request(Method::GET, "").query(&[("labelSelector", label)]);
        let mut list = answer(request, "listing Secrets").await?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    pub async fn get(&self, name: &str) -> Result<Value> {
        answer(self.request(Method::GET, name), name).await
    }

    /// Makes the Secret, or makes it so.
    pub async fn apply(&self, secret: &Value) -> Result<()> {
        let name = secret["metadata"]["name"].as_str().context("a Secret without name")?;
        let request = self
            .request(Method::PATCH, name)
            .query(&[("fieldManager", MANAGER), ("force", "true")])
            .header("Content-Type", "application/apply-patch+yaml")
            .body(secret.to_string());
        answer(request, name).await.map(drop)
    }

    /// Takes a key out of a Secret.
    pub async fn forget(&self, name: &str, key: &str) -> Result<()> {
        let request = self
            .request(Method::PATCH, name)
            .header("Content-Type", "application/merge-patch+json")
            .body(json!({"data": {key: null}}).to_string());
        answer(request, name).await.map(drop)
    }

    fn request(&self, method: Method, name: &str) -> RequestBuilder {
        let url = match name {
            "" => self.secrets.clone(),
            name => format!("{}/{name}", self.secrets),
        };
        self.client.request(method, url).bearer_auth(&self.token)
    }
}

/// The status' message names object and reason, and holds no values.
async fn answer(request: RequestBuilder, what: &str) -> Result<Value> {
    let response = request
        .send()
        .await
        .with_context(|| format!("{what}: the Kubernetes API does not answer"))?;
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    match status {
        StatusCode::OK | StatusCode::CREATED => Ok(body),
        _ => bail!(
            "{what}: the Kubernetes API answers {status}: {}",
            body["message"].as_str().unwrap_or_default()
        ),
    }
}
