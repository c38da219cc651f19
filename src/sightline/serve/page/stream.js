// One answer from the server, piece by piece.

export class Refusal extends Error {
  constructor(status, text, after) {
    super(text);
    Object.assign(this, { status, after });
  }
}

// body: of /v1/chat/completions; signal: of an AbortController; heard: called with each piece of text.
// Gives the last event that knows how sure the answer is.
export async function ask(body, signal, heard) {
  const answer = await fetch("/v1/chat/completions", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ ...body, stream: true }), signal,
  });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, said.error?.message ?? "", answer.headers.get("retry-after"));
  }
  let last = null;
  for await (const event of events(answer.body)) {
    if (event.error) throw new Refusal(502, event.error.message, null);
    const choice = event.choices[0];
    if (choice?.delta?.content) heard(choice.delta.content);
    if (choice?.finish_reason) last = { reason: choice.finish_reason, ...event.sightline };
  }
  if (!last) throw new TypeError("the stream ended early");
  return last;
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const text = part.replace(/^data: /, "");
      if (text === "[DONE]") return;
      yield JSON.parse(text);
    }
  }
}
