-- Refuses to work on a shard that does not exist, that a failed script has left half written, or that depends on a
-- plugin which this runtime lacks; and for a runtime that does not know to which shards tenants have moved. The last key
-- names the layout that it knows, if there ever was another.

-- @include lib/base.lua
-- @include lib/needs.lua

if not shard.step then return redis.error_reply('NOTOPEN the namespace does not exist (any more): open it') end
if shard.torn then return redis.error_reply('TORN a script failed before its last write: repair the shard') end
if shard.epoch > (tonumber((KEYS[#KEYS]:match(':layout:(%d+)$'))) or 0) then
  return redis.error_reply('LAYOUT the namespace has got more shards: this needs a release of fairactor that knows them')
end
local refusal = shard.plugins and shard.plugins ~= PLUGINS and refuse_without(shard.plugins)
if refusal then return refusal end
