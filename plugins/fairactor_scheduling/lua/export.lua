-- Reads schedules of a tenant that belongs to another shard now. They stay here, unchanged, until exported.lua says that they
-- have arrived there.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 and 3 the range of their names, as ZRANGEBYLEX takes it
-- Reply {the plugins that this shard depends on, or '', schedule, what import.lua takes, ...}; only the first if there are no
--       such schedules, or the tenant does not belong to another shard
--
-- Bounded: 50 schedules, and 500 kB by about one.
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local MOST, BYTES = 50, 500000
local reply, size = { shard.plugins or '' }, 0
if not has_left(ARGV[1]) then return reply end
for _, schedule in ipairs(call('ZRANGEBYLEX', OWN .. 'all', ARGV[2], ARGV[3], 'LIMIT', 0, MOST)) do
  if size >= BYTES then break end
  local due, actor = call('ZSCORE', OWN .. 'due', schedule), call('HGET', OWN .. 'declared', schedule)
  local packed = cmsgpack.pack({ schedule, due or '', actor or '', call('HGETALL', key_of(schedule)) })
  reply[#reply + 1], reply[#reply + 2] = schedule, packed
  size = size + #packed
end
return reply
