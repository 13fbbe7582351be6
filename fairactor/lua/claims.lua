-- Counts what a runtime has claimed, by tenant or by route, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 'tenants' or 'routes', 3 cursor, 0 at first
-- Reply {next cursor, 0 at the end, tenant, or route as JSON text, how many of its tasks are claimed, ...}: a task may be
--       counted twice
--
-- Reads only. It looks at about 400 claims, or at 150 with their records.

-- @include lib/intact.lua
-- @include lib/lanes.lua

local by_route = ARGV[2] == 'routes'
if by_route then open_lanes() end
local part, numbers = call('HSCAN', CLAIMS .. ARGV[1], ARGV[3], 'COUNT', by_route and 150 or 400), {}
for i = 1, #part[2], 2 do
  local name = by_route and lanes.route_in(call('GETRANGE', TASK .. part[2][i], 0, 2400)) or tenant_in(part[2][i + 1])
  numbers[name] = (numbers[name] or 0) + 1
end
local reply = { part[1] }
for name, number in pairs(numbers) do reply[#reply + 1], reply[#reply + 2] = name, number end
return reply
