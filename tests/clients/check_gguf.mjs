#!/usr/bin/env node
// SPDX-License-Identifier: GPL-3.0-or-later
// Perplexity of a GGUF model through llama.cpp, as JSON: check_gguf.mjs JOB.json
// A job: {"model", "adapter": file or absent, "ids": token ids, "length", "bos": id or null, "prompts": lists of ids}. An answer:
// {"perplexity", "targets", "nll_sum", "bos", "tokens": ids of "text", "logits": behind each prompt, by id} or {"error"}. Needs node-llama-cpp, below $RANKSCOPE_NODE_MODULES.
import fs from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const modules = path.resolve(process.env.RANKSCOPE_NODE_MODULES ?? "node_modules");

function logSumExp(values) {
    let largest = -Infinity;
    for (const value of values) largest = Math.max(largest, value);
    let sum = 0;
    for (const value of values) sum += Math.exp(value - largest);
    return largest + Math.log(sum);
}

async function main() {
    const {getLlama, LlamaLogLevel} = await import(pathToFileURL(path.join(modules, "node-llama-cpp/dist/index.js")).href);
    const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 2});
    const model = await llama.loadModel({modelPath: job.model});
    const size = Math.max(job.length, 64);
    const context = await model.createContext({
        contextSize: size, batchSize: size, threads: 2, flashAttention: false,
        experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32",
        lora: job.adapter ? {adapters: [{filePath: job.adapter, scale: 1}]} : undefined});
    const sequence = context.getSequence();
    const front = job.bos === null ? [] : [job.bos];
    const step = job.length - front.length;
    let nll = 0, targets = 0;
    for (let begin = 0; begin + step <= job.ids.length; begin += step) {
        const window = [...front, ...job.ids.slice(begin, begin + step)];
        await sequence.clearHistory();
        const answers = await sequence.controlledEvaluate(
            window.map((token) => [token, {generateNext: {logits: true, options: {temperature: 0}}}]));
        for (let i = 0; i + 1 < window.length; i++, targets++) {
            const logits = answers[i].next.logits;
            nll += logSumExp(Array.from(logits.values())) - logits.get(window[i + 1]);
        }
    }
    const logits = [];
    for (const prompt of job.prompts ?? []) {
        await sequence.clearHistory();
        const answers = await sequence.controlledEvaluate(prompt.map(
            (token, i) => i + 1 < prompt.length ? token : [token, {generateNext: {logits: true, options: {temperature: 0}}}]));
        const row = [];
        for (const [token, value] of answers[prompt.length - 1].next.logits) row[token] = value;
        logits.push(row);
    }
    return {logits, perplexity: Math.exp(nll / targets), targets, nll_sum: nll,
            bos: model.tokens.shouldPrependBosToken ? model.tokens.bos : null,
            tokens: job.text ? Array.from(model.tokenize(job.text, false)) : []};
}

try {
    console.log(JSON.stringify(await main()));
} catch (error) {
    console.log(JSON.stringify({error: String(error?.message ?? error)}));
}
process.exit(0);
