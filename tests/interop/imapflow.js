// A session of imapflow, driven by check_imap_clients.py: one command a line, [name, ...arguments] in JSON, one
// answer a line. What the server tells without being asked is gathered for "events".
"use strict";
const { ImapFlow } = require("imapflow");
const readline = require("readline");

const [host, port, user] = process.argv.slice(2);
const client = new ImapFlow({
    host, port: Number(port), secure: true, tls: { rejectUnauthorized: false }, auth: { user, pass: "secret" },
    logger: false, qresync: true, disableAutoIdle: true,
});
const events = [];
client.on("exists", (e) => events.push(["exists", e.count]));
client.on("expunge", (e) => events.push(["expunge", e.uid || e.seq]));
client.on("flags", (e) => events.push(["flags", e.uid || e.seq, [...e.flags].sort()]));
client.on("error", (e) => events.push(["error", String(e)]));

const commands = {
    connect: async () => {
        await client.connect();
        return { enabled: [...client.enabled].sort(), compressed: !!client._inflate, capabilities: [...client.capabilities.keys()].sort() };
    },
    open: async (path) => (await client.mailboxOpen(path)).exists,
    create: async (path) => (await client.mailboxCreate(path)).created,
    list: async () => (await client.list()).map((x) => [x.path, x.specialUse || ""]),
    append: async (path, text, flags) => (await client.append(path, text, flags)).uid,
    fetch: async (range) => {
        const out = [];
        for await (const m of client.fetch(range, { uid: true, flags: true, envelope: true, bodyStructure: true, size: true }, { uid: true }))
            out.push([m.uid, m.envelope.subject, [...m.flags].sort(), m.bodyStructure.type, m.size]);
        return out;
    },
    source: async (uid) => (await client.fetchOne(String(uid), { source: true }, { uid: true })).source.toString(),
    search: async (query) => client.search(query, { uid: true }),
    flag: async (range, flags) => client.messageFlagsAdd(range, flags, { uid: true }),
    unflag: async (range, flags) => client.messageFlagsRemove(range, flags, { uid: true }),
    remove: async (range) => client.messageDelete(range, { uid: true }),
    move: async (range, path) => [...(await client.messageMove(range, path, { uid: true })).uidMap.values()],
    status: async (path) => {
        const s = await client.status(path, { messages: true, unseen: true, uidNext: true });
        return [s.messages, s.unseen];
    },
    idle: async () => { client.idle(); return true; },
    noop: async () => { await client.noop(); return true; },
    events: async () => events.splice(0),
    quit: async () => { await client.logout(); return true; },
};

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const [name, ...args] = JSON.parse(line);
    try {
        console.log(JSON.stringify({ ok: await commands[name](...args) }));
    } catch (e) {
        console.log(JSON.stringify({ error: String(e) + " " + (e.responseText || "") }));
    }
    if (name === "quit")
        process.exit(0);
});
