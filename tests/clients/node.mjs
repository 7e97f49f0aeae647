// A WebSocket client over TLS, of Node's standard library alone: what it sends has to come back.
//
//   node node.mjs --port PORT --ca FILE [--name NAME] [--cert FILE --key FILE] [--version 1.2|1.3] [--visits N]
//   node node.mjs --port PORT --builtin
//
// Each visit after the first has to resume the session. With --builtin it is Node's own WebSocket, which trusts what
// NODE_EXTRA_CA_CERTS names; where there is none, it says so. Ends with 1 and says what was wrong, if anything was.

import { readFileSync } from "node:fs";
import tls from "node:tls";
import { parseArgs } from "node:util";

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; // RFC 6455 1.3
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const SIZES = [0, 1, 125, 126, 16384, 65535, 65536, 1 << 20, 16 << 20];
const MANY = 10_000;

const { values: options } = parseArgs({
    options: {
        port: { type: "string" },
        ca: { type: "string" },
        name: { type: "string", default: "localhost" },
        cert: { type: "string" },
        key: { type: "string" },
        version: { type: "string", default: "1.3" },
        visits: { type: "string", default: "1" },
        builtin: { type: "boolean", default: false },
    },
});

setTimeout(() => fail(new Error("not done within 60 s")), 60_000).unref();
if (options.builtin) {
    await builtin();
} else {
    let session;
    for (let visit = 0; visit < Number(options.visits); visit++) session = await visitOnce(session);
}
process.exit(0);

function fail(error) {
    console.error(error);
    process.exit(1);
}

function insist(fact, message) {
    if (!fact) throw new Error(message);
}

function binary(size) {
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; at++) bytes[at] = at * 31 + at / 251;
    return bytes;
}

function text(size) {
    return "abcdefg".repeat(size / 7 + 1).slice(0, size);
}

/** Over tls.connect(), with frames made here. The session that the next visit resumes. */
async function visitOnce(earlier) {
    const version = `TLSv${options.version}`;
    const socket = tls.connect({
        host: "127.0.0.1",
        port: Number(options.port),
        ca: readFileSync(options.ca),
        cert: options.cert && readFileSync(options.cert),
        key: options.key && readFileSync(options.key),
        servername: options.name,
        ALPNProtocols: ["http/1.1"],
        minVersion: version,
        maxVersion: version,
        session: earlier,
    });
    let session;
    socket.on("session", (ticket) => (session = ticket));
    const read = reader(socket);
    await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    insist(socket.authorized, `the server is not trusted: ${socket.authorizationError}`);
    insist(socket.alpnProtocol === "http/1.1", `ALPN chose ${socket.alpnProtocol}`);
    insist(socket.isSessionReused() === Boolean(earlier), `the session was resumed: ${socket.isSessionReused()}`);

    socket.write(
        `GET /ws HTTP/1.1\r\nHost: ${options.name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
            `Sec-WebSocket-Key: ${KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
    );
    const head = await read.head();
    insist(head.startsWith("HTTP/1.1 101 ") && head.includes(ACCEPT), `not a WebSocket's answer: ${head}`);
    for (const size of SIZES) {
        for (const [opcode, payload] of [[1, Buffer.from(text(size))], [2, binary(size)]]) {
            socket.write(frame(opcode, payload));
            await expect(read, opcode, payload);
        }
    }
    for (let number = 0; number < MANY; number++) socket.write(frame(1, Buffer.from(`message ${number}`)));
    for (let number = 0; number < MANY; number++) await expect(read, 1, Buffer.from(`message ${number}`));
    const goodbye = Buffer.from([3, 232]);
    socket.write(frame(8, goodbye));
    await expect(read, 8, goodbye);
    await read.end();
    socket.end();
    return session;
}

/** What came over the socket, in the pieces that are asked for. */
function reader(socket) {
    let chunks = [], held = 0, ended = false, wake = () => {};
    socket.on("data", (chunk) => { chunks.push(chunk); held += chunk.length; wake(); });
    socket.on("end", () => { ended = true; wake(); });
    socket.on("error", fail);
    const more = async () => {
        insist(!ended, "the server hung up");
        await new Promise((resolve) => { wake = resolve; });
    };
    const exactly = async (size) => {
        while (held < size) await more();
        const all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
        chunks = [all.subarray(size)];
        held -= size;
        return all.subarray(0, size);
    };
    return {
        exactly,
        async head() {
            let head = "";
            while (!head.endsWith("\r\n\r\n")) head += await exactly(1);
            return head;
        },
        async end() {
            while (!ended) await more();
            insist(held === 0, `${held} bytes too many`);
        },
    };
}

function frame(opcode, payload) {
    let head;
    if (payload.length < 126) {
        head = Buffer.from([0x80 | opcode, 0x80 | payload.length]);
    } else if (payload.length < 1 << 16) {
        head = Buffer.from([0x80 | opcode, 0xfe, payload.length >> 8, payload.length & 0xff]);
    } else {
        head = Buffer.alloc(10);
        head.set([0x80 | opcode, 0xff]);
        head.writeBigUInt64BE(BigInt(payload.length), 2);
    }
    const masked = Buffer.from(payload);
    for (let at = 0; at < masked.length; at++) masked[at] ^= MASK[at % 4];
    return Buffer.concat([head, MASK, masked]);
}

/** One whole message, in however many frames it comes. */
async function expect(read, opcode, payload) {
    const parts = [];
    for (let expected = opcode; ; expected = 0) {
        const [first, second] = await read.exactly(2);
        insist((first & 0x0f) === expected && second < 0x80, `a frame begins with ${first}, ${second}`);
        let size = second;
        if (second === 126) size = (await read.exactly(2)).readUInt16BE();
        if (second === 127) size = Number((await read.exactly(8)).readBigUInt64BE());
        parts.push(await read.exactly(size));
        if (first & 0x80) break;
    }
    insist(Buffer.concat(parts).equals(payload), `${payload.length} bytes came back different`);
}

/** Node's own WebSocket. */
async function builtin() {
    if (typeof WebSocket === "undefined") {
        console.log(`no WebSocket in Node ${process.version}`);
        return;
    }
    const socket = new WebSocket(`wss://127.0.0.1:${options.port}/ws`);
    socket.binaryType = "arraybuffer";
    const answers = [];
    let wake = () => {};
    socket.onmessage = ({ data }) => { answers.push(data); wake(); };
    socket.onerror = (event) => fail(event.error ?? event.message ?? "the WebSocket failed");
    const next = async () => {
        while (!answers.length) await new Promise((resolve) => { wake = resolve; });
        return answers.shift();
    };
    await new Promise((resolve) => { socket.onopen = resolve; });
    for (const size of SIZES) {
        const bytes = binary(size);
        socket.send(bytes);
        insist(Buffer.from(await next()).equals(bytes), `${size} bytes came back different`);
        socket.send(text(size));
        insist((await next()) === text(size), `text of ${size} bytes came back different`);
    }
    for (let number = 0; number < MANY; number++) socket.send(`message ${number}`);
    for (let number = 0; number < MANY; number++) insist((await next()) === `message ${number}`, `message ${number}`);
    const closed = new Promise((resolve) => { socket.onclose = resolve; });
    socket.close(1000);
    const { code, wasClean } = await closed;
    insist(code === 1000 && wasClean, `closed with ${code}, cleanly: ${wasClean}`);
    console.log("echoed");
}
