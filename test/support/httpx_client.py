"""The calls of the seed's backend with httpx.AsyncClient, through aiproxy. Prints one JSON line per call.

usage: httpx_client.py BASE_URL CALL...     BASE_URL like http://127.0.0.1:8080/ai/v1
"""

import asyncio
import base64
import json
import sys

import httpx

QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How much is in a banana?"}]}


async def lines_of(answer):
    """httpx before 0.24 leaves the line ends on."""
    async for line in answer.aiter_lines():
        yield line.rstrip("\r\n")


async def chat(client):
    answer = await client.post("/chat/completions", json=QUESTION)
    answer.raise_for_status()
    return {"content": answer.json()["choices"][0]["message"]["content"], "timing": answer.headers["server-timing"]}


async def stream(client):
    content, pieces = "", 0
    async with client.stream("POST", "/chat/completions", json={**QUESTION, "stream": True}) as answer:
        answer.raise_for_status()
        async for line in lines_of(answer):
            if line.startswith("data: {"):
                pieces += 1
                choices = json.loads(line[6:])["choices"]
                content += choices[0]["delta"].get("content", "") if choices else ""
            elif line == "data: [DONE]":
                return {"content": content, "pieces": pieces, "done": True}
    return {"content": content, "pieces": pieces, "done": False}


async def image(client):
    picture = base64.b64encode(b"\x07" * (8 << 20)).decode()
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    answer = await client.post(
        "/chat/completions", json={"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    )
    answer.raise_for_status()
    return {"content": answer.json()["choices"][0]["message"]["content"]}


async def embeddings(client):
    answer = await client.post("/embeddings", json={"model": "text-embedding-3-small", "input": ["a", "b"]})
    answer.raise_for_status()
    return {"lengths": [len(item["embedding"]) for item in answer.json()["data"]]}


async def error(client):
    answer = await client.post("/chat/completions", json={**QUESTION, "model": "gpt-0"})
    try:
        answer.raise_for_status()
    except httpx.HTTPStatusError as problem:
        return {"status": problem.response.status_code, "code": problem.response.json()["error"]["code"]}
    return {"status": answer.status_code}


async def abort(client):
    """Leaves within the stream, after its first line."""
    async with client.stream("POST", "/chat/completions", json={**QUESTION, "stream": True}) as answer:
        async for line in lines_of(answer):
            return {"first": line}


async def cut(client):
    """A stream that the upstream cuts must raise."""
    lines = []
    try:
        async with client.stream("POST", "/chat/completions", json={**QUESTION, "stream": True}) as answer:
            async for line in lines_of(answer):
                lines.append(line)
    except httpx.TransportError as problem:
        return {"lines": lines, "raised": type(problem).__name__}
    return {"lines": lines, "raised": None}


async def many(client):
    answers = await asyncio.gather(*(client.post("/chat/completions", json=QUESTION) for _ in range(40)))
    return {"statuses": sorted({answer.status_code for answer in answers}), "count": len(answers)}


async def main(base_url, calls):
    headers = {"Authorization": "Bearer sk-test"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30, trust_env=False) as client:
        for name in calls:
            print(json.dumps({"call": name, **await globals()[name](client)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
