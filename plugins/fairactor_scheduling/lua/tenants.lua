-- Lists the tenants that have schedules, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 where to begin, as ZRANGEBYLEX takes it, '-' at first
-- Reply {where to go on, or nothing at the end, tenant, ...}
--
-- Bounded: a look for each of 100 tenants.
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local AT_ONCE = 100
local from, reply = ARGV[1], { false }
for _ = 1, AT_ONCE do
  local schedule = call('ZRANGEBYLEX', OWN .. 'all', from, '+', 'LIMIT', 0, 1)[1]
  if not schedule then return reply end
  local tenant, at = owner_of(schedule)
  if tenant then reply[#reply + 1] = tenant end
  from = '(' .. (tenant and schedule:sub(1, at) .. '\255' or schedule)
end
reply[1] = from
return reply
