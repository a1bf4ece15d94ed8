// Verifies X-Tenant-Context in Node (20 or later), with nothing but its standard library. What is checked and why is in
// ../README.md.
//
//   import { TenantContexts } from "./verify.mjs";
//   const contexts = new TenantContexts("http://127.0.0.1:8600/.well-known/schoolgate/jwks.json", "shared");
//   const tenant = await contexts.verify(request.headers["x-tenant-context"]);   // throws NotVerified: answer 401
//
// As a server: node verify.mjs <URL of the keys> <pool> [host:port]

import { createPublicKey, verify } from "node:crypto";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const LEEWAY_S = 5; // between the gateway's clock and ours
const ISSUED_AHEAD_S = 60; // a token's whole life; more is a broken clock
const ASK_AGAIN_MS = 5_000; // invented key ids must not make us a load on the source of keys
const KEEP_MS = 300_000; // at most, whatever max-age says: a withdrawn key counts for no longer
const FETCH_WITHIN_MS = 2_000;
const LONGEST_TOKEN = 16 * 1024;

/** The request did not come through the gateway, or is for somebody else: 401. */
export class NotVerified extends Error {}

export class TenantContexts {
  #keys = new Map();
  #staleAt = -Infinity;
  #askedAt = -Infinity;
  #asking = null;

  constructor(keysUrl, audience, issuer = "schoolgate") {
    Object.assign(this, { keysUrl, audience, issuer });
  }

  /** The claims of a token that holds; throws NotVerified otherwise. `now` is in seconds since 1970. */
  async verify(token, now = Date.now() / 1000) {
    // Node joins repeated headers with a comma; a comma is in no token, so several are refused as well.
    const parts = typeof token === "string" && token.length <= LONGEST_TOKEN ? token.split(".") : [];
    if (parts.length !== 3 || !parts.every((part) => /^[\w-]+$/.test(part))) throw new NotVerified("not a compact JWS");
    const [header, claims] = parts.slice(0, 2).map(object);
    if (header.alg !== "EdDSA" || header.crit !== undefined) throw new NotVerified("not signed with plain EdDSA");
    const key = await this.#key(header.kid);
    const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
    // `null`: the algorithm is the key's own, Ed25519, whatever the token says.
    const holds = verify(null, signed, key, Buffer.from(parts[2], "base64url"));
    if (!holds) throw new NotVerified("the signature does not hold");
    if (claims.iss !== this.issuer || claims.aud !== this.audience) throw new NotVerified("from or for someone else");
    // Written so that what is not a number fails.
    if (!(claims.exp + LEEWAY_S > now)) throw new NotVerified("expired");
    if (claims.nbf !== undefined && !(claims.nbf - LEEWAY_S <= now)) throw new NotVerified("not valid yet");
    if (!(claims.iat <= now + ISSUED_AHEAD_S)) throw new NotVerified("issued in the future");
    const isTenant = /^tnt_[0-9A-HJKMNP-TV-Z]{26}$/.test(claims.tenant_id) && claims.sub === claims.tenant_id;
    if (!isTenant) throw new NotVerified("no valid tenant");
    return claims;
  }

  async #key(id) {
    const now = performance.now();
    const wanted = !this.#keys.has(id) || now >= this.#staleAt;
    if (wanted && !this.#asking && now - this.#askedAt >= ASK_AGAIN_MS) {
      this.#askedAt = now;
      // While the source is gone, the keys we have go on counting.
      this.#asking = this.#fetch().catch((error) => console.error(`no keys from ${this.keysUrl}: ${error.message}`));
      this.#asking.finally(() => (this.#asking = null));
    }
    // Who meets an unknown key waits for the answer; who knows its key does not.
    if (!this.#keys.has(id) && this.#asking) await this.#asking;
    if (!this.#keys.has(id)) throw new NotVerified("signed with an unknown key");
    return this.#keys.get(id);
  }

  async #fetch() {
    const answer = await fetch(this.keysUrl, { signal: AbortSignal.timeout(FETCH_WITHIN_MS) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const ed25519 = (await answer.json()).keys.filter((key) => key.kty === "OKP" && key.crv === "Ed25519");
    if (ed25519.length === 0) throw new Error("no Ed25519 key in it");
    this.#keys = new Map(ed25519.map((key) => [key.kid, createPublicKey({ key, format: "jwk" })]));
    const maxAge = /(?:^|[\s,])max-age=(\d+)/.exec(answer.headers.get("cache-control") ?? "");
    this.#staleAt = performance.now() + Math.min(maxAge ? Number(maxAge[1]) * 1000 : KEEP_MS, KEEP_MS);
  }
}

/** A part of a token that is a JSON object. */
function object(part) {
  let value = null;
  try {
    value = JSON.parse(Buffer.from(part, "base64url"));
  } catch {
    // The next line says so.
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new NotVerified("not a compact JWS");
  return value;
}

/** A backend that greets the school. Everything but /healthz needs a tenant context. */
export function serve(contexts) {
  const server = createServer(async (request, response) => {
    const answer = (status, body) => {
      const type = status < 400 ? "application/json" : "application/problem+json";
      response.writeHead(status, { "content-type": type }).end(JSON.stringify(body));
    };
    if (request.url === "/healthz") return answer(200, { status: "ok" });
    try {
      const tenant = await contexts.verify(request.headers["x-tenant-context"]);
      answer(200, { tenant_id: tenant.tenant_id, slug: tenant.slug, greeting: `Welcome to ${tenant.name}` });
    } catch (error) {
      if (!(error instanceof NotVerified)) throw error;
      // Why is for our log: a stranger learns nothing.
      console.error(`401: ${error.message}`);
      answer(401, { status: 401, error: "INVALID_TOKEN", message: "This needs a tenant context of the gateway." });
    }
  });
  // Longer than the gateway keeps an idle connection, so that it is never ours that closes one just being used.
  server.keepAliveTimeout = 120_000;
  return server;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [keysUrl, audience, address = "127.0.0.1:8801"] = process.argv.slice(2);
  if (!keysUrl || !audience) {
    console.error("usage: node verify.mjs <URL of the keys> <pool> [host:port]");
    process.exit(2);
  }
  const [host, port] = address.split(":");
  const server = serve(new TenantContexts(keysUrl, audience));
  server.listen(Number(port), host, () => console.log(`listening on ${host}:${server.address().port}`));
}
