-- Refuses to work on a shard that does not exist, that a failed script has left half written, or that depends on a
-- plugin which this runtime lacks.

-- @include lib/base.lua
-- @include lib/needs.lua

if not shard.step then return redis.error_reply('NOTOPEN the namespace does not exist (any more): open it') end
if shard.torn then return redis.error_reply('TORN a script failed before its last write: repair the shard') end
local refusal = shard.plugins and shard.plugins ~= PLUGINS and refuse_without(shard.plugins)
if refusal then return refusal end
