//! Who may call what: a table of path prefixes. What is not in it is refused.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header;

use crate::identity::Caller;
use crate::problem::Problem;

type Rule = Arc<dyn Fn(&Caller) -> bool + Send + Sync>;

/// A table of path prefixes and who may call what is under them. The longest prefix decides.
#[derive(Clone, Default)]
pub struct Access {
    rules: Vec<(String, Rule)>,
}

impl Access {
    /// Nobody may call anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Callers for whom `rule` holds may call paths that begin with `prefix`.
    pub fn allow(mut self, prefix: impl Into<String>, rule: impl Fn(&Caller) -> bool + Send + Sync + 'static) -> Self {
        self.rules.push((prefix.into(), Arc::new(rule)));
        self.rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    pub fn permits(&self, caller: &Caller, path: &str) -> bool {
        let rule = self.rules.iter().find(|(prefix, _)| path.starts_with(prefix.as_str()));
        rule.is_some_and(|(_, rule)| rule(caller))
    }

    /// Puts the table in front of all routes.
    pub(super) fn guard(self, routes: Router) -> Router {
        routes.layer(axum::middleware::from_fn_with_state(Arc::new(self), check))
    }
}

async fn check(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let problem = match Caller::of(request.extensions()) {
        Ok(caller) if access.permits(&caller, request.uri().path()) => return next.run(request).await,
        Ok(caller) => Problem::denied(format!("not open to the role {} of {}", caller.role, caller.msp_id)),
        Err(problem) => problem,
    };
    refusal(&request, problem)
}

/// Says no before any route has the request, in the caller's protocol.
pub(super) fn refusal<B>(request: &http::Request<B>, problem: Problem) -> Response {
    let content = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        tonic::Status::from(problem).into_http::<axum::body::Body>()
    } else {
        problem.into_response()
    }
}
