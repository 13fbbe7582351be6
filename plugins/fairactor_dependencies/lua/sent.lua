-- Notes what a task waits for; ends.lua looks at it once the batch is accepted. `data.dependencies` may have `parents`,
-- ids; `tenants` of these, or '' for any; `shards` of these: HERE, a number, or NOTIFIES if that shard notifies by itself; `rule`; `keep`, ms to keep the
-- record if it is canceled; `token`, for results in its arguments; `wants`, the indexes of their parents; `gate`, the
-- run whose gate has to open; `shard`, its own; `feeds`, tasks of other shards that wait for it: {shard, index, whether
-- it wants the result, id}, ...
local waits = data.dependencies
mine.in_batch = mine.in_batch or {}
mine.in_batch[id] = name
if waits.parents or waits.gate then
  mine.sent = mine.sent or {}
  mine.sent[#mine.sent + 1] = { id, waits }
  hold()
end
for _, fed in ipairs(waits.feeds or {}) do
  mine.feeds = mine.feeds or {}
  mine.feeds[#mine.feeds + 1] = { id, fed }
end
