-- Lists the schedules that are late, those that are late for longest first.
--
-- KEYS  1 META of the shard
-- Reply {the server's time in ms, schedule, ms at which it was due, ...}
--
-- Bounded: 20 schedules.
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local MOST = 20
local reply = { integer(shard.wall_ms) }
for _, part in ipairs(call('ZRANGEBYSCORE', OWN .. 'due', '-inf', integer(shard.wall_ms), 'WITHSCORES', 'LIMIT', 0, MOST)) do
  reply[#reply + 1] = part
end
return reply
