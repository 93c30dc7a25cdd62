//! How agents reach govrun: the registered tools as an MCP server, over standard input and output or over HTTP.
//!
//! Nothing here decides: every call goes to [`govrun_host::Runtime`], and what comes back is said in the words of the
//! protocol. Nothing here can change policy or answer an approval.

pub mod http;
pub mod mcp;
