//! The registered tools as an MCP server (specification 2026-07-28, and the 2025-11-25 lifecycle).

mod answer;
mod catalogue;

use std::sync::Arc;
use std::time::Duration;

use govrun_host::arguments::Given;
use govrun_host::{Runtime, Who};
use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer, ServiceExt as _};

/// Longest that a call is held for its approval before the agent is told the ticket: shorter than the time-outs of
/// clients, so that they learn what waits instead of seeing a failure.
pub const HOLD: Duration = Duration::from_secs(45);

/// What a client is told about this server.
const INSTRUCTIONS: &str = "Every tool here runs under policy. A refusal is final for the same call: its text says the \
reason, and `_meta` of each result names the decision's record. After `throttled`, wait as long as it says. After \
`pending approval`, repeat the same call later: it attaches to the approval that is waiting.";

/// One principal's view of the tools.
#[derive(Clone)]
pub struct Server {
    runtime: Arc<Runtime>,
    who: Option<Who>,
}

impl Server {
    /// A server for whoever is on the other end of a pipe.
    #[must_use]
    pub fn for_principal(runtime: Arc<Runtime>, who: Who) -> Self {
        Self { runtime, who: Some(who) }
    }

    /// A server whose principal is found in the extensions of each HTTP request, where [`crate::http`] puts it after
    /// looking at the bearer token. A request without one is refused.
    #[must_use]
    pub const fn for_requests(runtime: Arc<Runtime>) -> Self {
        Self { runtime, who: None }
    }

    /// Who asks; from the connection, never from what the client says of itself.
    fn principal(&self, context: &RequestContext<RoleServer>) -> Result<Who, ErrorData> {
        let by_request =
            || context.extensions.get::<axum::http::request::Parts>()?.extensions.get::<Who>().cloned();
        self.who
            .clone()
            .or_else(by_request)
            .ok_or_else(|| ErrorData::invalid_request("this request has no principal", None))
    }

    async fn call(&self, who: &Who, request: CallToolRequestParams) -> Result<CallToolResult, ErrorData> {
        let named = catalogue::find(&self.runtime, &request.name);
        let Some((tool, function)) = named else {
            let message =
                format!("there is no tool `{}`; tools/list names those that are there", request.name);
            return Err(ErrorData::invalid_params(message, None));
        };
        let arguments = serde_json::to_string(&request.arguments.unwrap_or_default())
            .map_err(|e| ErrorData::invalid_params(e.to_string(), None))?;
        let outcome = self.runtime.call(who, tool, &function, Given::Json(&arguments)).await;
        Ok(match outcome {
            Ok(answer) => answer::given(&answer),
            Err(error) => answer::refused(&error),
        })
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("govrun", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(INSTRUCTIONS.to_owned());
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let who = self.principal(&context)?;
        Ok(ListToolsResult::with_all_items(catalogue::tools(&self.runtime, &who)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let who = self.principal(&context)?;
        tokio::select! {
            // A cancelled request drops the call: its guest stops, and its outcome is recorded as cancelled.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("the request was cancelled", None)),
            result = self.call(&who, request) => result.map(CallToolResponse::from),
        }
    }

    /// The library would check arguments against this; the host does, with better sentences.
    fn get_tool(&self, _: &str) -> Option<Tool> {
        None
    }
}

/// Serve one client over standard input and output until it closes them.
///
/// # Errors
/// When the client breaks the protocol before the first request.
pub async fn serve_stdio(server: Server) -> Result<(), String> {
    let running =
        server.serve(rmcp::transport::io::stdio_pipes()).await.map_err(|e| format!("the MCP client: {e}"))?;
    running.waiting().await.map(drop).map_err(|e| format!("the MCP server ended badly: {e}"))
}
