-- Lists the tenants of which the shard has counts or settings, in steps, but for those that have gone to another one.
--
-- KEYS  1 META of the shard
-- ARGV  1 'counts' or 'settings': where to look, 2 cursor, 0 at first
-- Reply {next cursor, 0 at the end, {name, 1 if it has live tasks, else 0, ...}}; one may come twice
--
-- Reads only. It looks at about 200 tenants.

-- @include lib/intact.lua
-- @include lib/counts.lua

local LOOK = 200
local found = call('HSCAN', ARGV[1] == 'counts' and COUNTS or POLICY, ARGV[2], 'COUNT', LOOK)
local names, reply = {}, {}
for i = 1, #found[2], 2 do
  local name = found[2][i]
  if name ~= '' and name:byte() ~= 255 then names[#names + 1] = name end
end
local policies = read_all('HMGET', POLICY, names)
for i, packed in ipairs(read_all('HMGET', COUNTS, names)) do
  local c = unpack_counts(packed)
  if not (policies[i] and cmsgpack.unpack(policies[i]).moving == 'gone') then
    reply[#reply + 1], reply[#reply + 2] = names[i], live(c) + c[WAITING] + c[DEFERRED] > 0 and 1 or 0
  end
end
return { found[1], reply }
