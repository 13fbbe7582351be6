-- Notes what a task waits for; `ends` looks at it when all tasks of the batch are there. `data.dependencies` has, what is
-- left out being nothing: `parents`, ids; `shards`, of each of them, HERE, its number, or TOLD where that will tell by
-- itself; `rule`; `keep`, how long to keep the record if it is canceled, in ms; `token`, what stands for results in its
-- arguments, and `wants`, the places of the parents whose results these are; `gate`, the run whose gate has to open first;
-- `shard`, its own; `feeds`, tasks of other shards that wait for it: {shard, place, whether it wants the result, id}, ...
local waits = data.dependencies
mine.in_batch = mine.in_batch or {}
mine.in_batch[id] = true
if waits.parents or waits.gate then
  mine.sent = mine.sent or {}
  mine.sent[#mine.sent + 1] = { id, waits }
  hold()
end
for _, fed in ipairs(waits.feeds or {}) do
  mine.feeds = mine.feeds or {}
  mine.feeds[#mine.feeds + 1] = { id, fed }
end
