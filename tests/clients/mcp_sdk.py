"""The official Python SDK (`mcp` 2) against `govrun serve`: `mcp_sdk.py GOVRUN STATE CONFIG [URL TOKEN]`.

Over the pipe, or over HTTP where a URL is given: lists the tools, makes one call that is allowed and one that is
blocked, and prints what it saw as one JSON object.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


async def look(client):
    async with client:
        tools = await client.list_tools()
        allowed = await client.call_tool("payments.send", {"counterparty": "Contoso Freight", "amount": 640})
        blocked = await client.call_tool("payments.send", {"counterparty": "Helix Offshore Ltd", "amount": 48000})
        seen = {
            "version": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "allowed": [allowed.is_error, allowed.structured_content],
            "blocked": [blocked.is_error, blocked.content[0].text],
        }
        print(json.dumps(seen))


async def main():
    govrun, state, config, *http = sys.argv[1:]
    if http:
        url, token = http
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as connection:
            await look(Client(streamable_http_client(url, http_client=connection)))
    else:
        arguments = ["--state", state, "serve", "--mcp", "stdio", "--config", config]
        await look(Client(StdioServerParameters(command=govrun, args=arguments)))


asyncio.run(main())
