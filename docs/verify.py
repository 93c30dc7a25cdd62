"""python3 verify.py LOGS TRUST: levels L1 and L2 of formats/audit-log.md, without approvers. Exit 0 verified, 1 tampered, 3 inconclusive, 4 other key."""
import base64, functools, hashlib, json, pathlib, sys, tomllib
P, Q, b64, unhex = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493, base64.b64decode, bytes.fromhex
D, I, u64 = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P), lambda n: n.to_bytes(8, "big")
KINDS = """seal genesis decision outcome escalation approval policy_load mode_change drill key_epoch gap recover io_error clock_step heartbeat open close"""
def need(ok, what, code=1):
    if not ok: raise Exception(code, what)
def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def same(a, b): return (a[0] * b[2] - b[0] * a[2]) % P == 0 == (a[1] * b[2] - b[1] * a[2]) % P  # points of edwards25519: (X, Y, Z, T) of RFC 8032
def add(a, b): q, r, s, t = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0]), 2 * a[3] * b[3] * D, 2 * a[2] * b[2]; return (r - q) * (t - s) % P, (t + s) * (r + q) % P, (t - s) * (t + s) % P, (r - q) * (r + q) % P
def mul(n, a): return (0, 1, 1, 0) if n == 0 else add(mul(n // 2, add(a, a)), a if n & 1 else (0, 1, 1, 0))
def point(s):  # strict: one encoding only, and not of small order
    y = int.from_bytes(s, "little") % 2**255; xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P; r = pow(xx, (P + 3) // 8, P)
    x = [x for x in (r, P - r, r * I % P, P - r * I % P) if x * x % P == xx and x & 1 == s[31] >> 7 and x < P]
    need(y < P and x and not same(mul(8, (x[0], y, 1, x[0] * y)), (0, 1, 1, 0)), "a key or signature that is none"); return x[0], y, 1, x[0] * y % P
def check(key, text, sig, code=1):
    k, s = (int.from_bytes(b, "little") for b in (hashlib.sha512(sig[:32] + key + text.encode()).digest(), sig[32:]))
    need(s < Q and same(mul(s, point(b"\x58" + b"\x66" * 31)), add(point(sig[:32]), mul(k % Q, point(key)))), "a signature does not hold", code)
def climb(i, n, h, proof):  # the root that an inclusion proof (RFC 9162), last hash first, leads to
    need(0 <= i < n and (n > 1) == bool(proof), "a proof of another length"); k = 1 << max(n - 1, 1).bit_length() - 1
    return h if n == 1 else sha(b"\1", climb(i, k, h, proof[1:]), proof[0]) if i < k else sha(b"\1", proof[0], climb(i - k, n - k, h, proof[1:]))
def led(i, n, h, proof, root): need(climb(i, n, h, [unhex(p) for p in proof[::-1]]) == unhex(root), "a key or log that nobody announced", 4)
def verify(log, trust, L, keys, tree=0, after=bytes(32), due=0, time=0, synced=0, sealed=0, cur=0, ends=0, closed=0):
    mth = functools.cache(lambda a, b: L[a] if b - a == 1 else sha(b"\1", mth(a, m := a + (1 << (b - a - 1).bit_length() - 1)), mth(m, b)))
    segs, origin, most = sorted(log.glob("[0-9]" * 8 + ".jsonl")), f"{trust['origin']}/{log.name}", {x["log"]: x["at"] for x in trust.get("revoked", [])}; need([s.stem for s in segs] == [f"{i + 1:08}" for i in range(len(segs))], "a segment is missing")
    for seg, n, line in ((s, *x) for s in segs for x in enumerate(s.read_bytes().splitlines(True))):
        need(line.endswith(b"\n"), "a line without end", 3 if seg == segs[-1] else 1); r, begins = json.loads(line), n == 0 and seg != segs[0]
        t, line, spelled = r["t"], line[:-1], json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode(); need(line == spelled, "another spelling"); need(r["v"] == 1 and t in KINDS.split(), "an unknown version or type", 3)
        if t == "seal":
            size, e, bits = r["size"], r["epoch"], [b for b in range(53, -1, -1) if r["size"] >> b & 1]; text = f"{origin}\n{size}\n{r['root']}\nsynced {r['synced']}\n"
            cur, ends, closed = (e, 0, 0) if closed and e == cur + 1 else (cur, ends, closed or ends == size)
            need(e == cur and r["after"] == after.hex() and max(sealed, 1) <= size <= len(L) and synced <= r["synced"] <= sealed, "a seal out of place"); need(b64(r["root"]) == mth(0, size) and r["range"] == [mth(size >> b + 1 << b + 1, size >> b << b).hex() for b in bits], "records that were not sealed so"); need(r["origin"] == origin and (not begins or size == r["synced"] == len(L)), "a seal of another place"); need(size <= most.get(log.name, size), "revoked", 4)
            need(r["key"] == sha(f"{origin}\n\1".encode(), keys[e])[:4].hex(), "another key", 4); check(keys[e], text, b64(r["sig"])); after, due, sealed, synced = sha(b"\2", line), 1, size, r["synced"]; continue
        need(r["seq"] == len(L) and r["prev"] == (L[-1] if L else bytes(32)).hex() and r.get("seal") == (after.hex() if due else None) and (t == "genesis") == (not L), "a record out of place")
        need((r["time"] >= time or t == "clock_step") and (closed or not ends) and not begins and len(L) - sealed < 4096, "a record out of turn"); time, due, cur, ends, closed = r["time"], 0, cur + bool(ends), (len(L) + 1) * (t == "key_epoch"), 0; L.append(sha(b"\0", line))
        if t == "genesis":
            (text, sig), leaf = r["cert"].rsplit("\n\n", 1), sha(b"\0", u64(r["slot"]), u64(r["epochs"]), unhex(r["epoch_root"])); rows = text.split("\n"); key0, logs = unhex(r["epoch_key"]), rows[4].split(" ")
            need(rows[2] == f"root-key {trust['root']}", "another root", 4); check(b64(trust["root"].split("+", 2)[2])[1:], text + "\n", b64(sig.split(" ")[2])[4:]); need(r["log"] == log.name and r["origin"] == origin, "another log")
            led(r["slot"], int(logs[1]), leaf, r["slot_proof"], b64(logs[2]).hex()); led(0, r["epochs"], sha(b"\0", u64(0), key0), r["epoch_proof"], r["epoch_root"]); need(leaf[:8].hex() == log.name, "another log", 4); keys[0], tree = key0, (0, r["epochs"], r["epoch_root"])
        if t == "key_epoch":
            e, new = r["epoch"], r.get("tree"); need(e == cur + 1, "an epoch out of order"); tree, keys[e] = (e, new["count"], new["root"]) if new else tree, unhex(r["key"])
            if new: check(b64(rows[3].split("+", 2)[2])[1:], f"govrun epochs v1\norigin {origin}\nfirst {e}\ncount {tree[1]}\nroot {base64.b64encode(unhex(tree[2])).decode()}\n", b64(new["sig"]), 4)
            led(e - tree[0], tree[1], sha(b"\0", u64(e), keys[e]), r["proof"], tree[2])
    need(L, "no record"); need(sealed == len(L), "records after the last seal", 3)
logs, trust, codes = pathlib.Path(sys.argv[1]), tomllib.loads(pathlib.Path(sys.argv[2]).read_text()), []
for log in sorted(d for d in logs.iterdir() if len(d.name) == 16 and not set(d.name) - set("0123456789abcdef")):
    try: codes.append((verify(log, trust, [], {}), 0, "verified"))
    except Exception as e: codes.append((0, *e.args) if len(e.args) == 2 else (0, 1, repr(e)))
    print(log.name, *codes[-1][1:])
sys.exit(next((c for c in (1, 4, 3, 0) if c in [x[1] for x in codes]), 3))
