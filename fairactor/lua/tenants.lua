-- Describes tenants, for those who operate the namespace.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on: tenants
-- Reply {for each tenant: its counts, packed, or '', its policy, packed, or '', how many of its tasks are queued, unix ms since
--        when the first of them has waited, or -1, the policy of its group, packed, or '', how many tenants of that group wait}; the
--        caller asks again for those that the reply does not have
--
-- Reads only. Bounded: its caller names 100 tenants, and it stops once it has sent 700 commands. A tenant costs as many
-- as it has lanes.

-- @include lib/intact.lua
-- @include lib/waits.lua

local MOST = 700
local ALONE = 5 -- commands for a tenant with one mailbox
local spent, reply = 0, {}
local has_suspects = call('EXISTS', SUSPECTED) == 1

-- Returns how many tasks of a tenant are queued, and since when the first of them has waited, in ms, or -1.
local function read_mailboxes(name)
  local keys = { QUEUE .. name }
  for i, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. name, 0, -1) or {}) do keys[i + 1] = mailbox(name, lane) end
  if has_suspects then keys[#keys + 1] = SUSPECTS .. name end
  local queued, longest = 0, -1
  for i, key in ipairs(keys) do
    local size = call('ZCARD', key)
    queued = queued + size
    -- The lanes are in the order of their first tasks.
    local may_be_first = size > 0 and (i <= 2 or i == #keys)
    longest = math.max(longest, may_be_first and waited_in(key) or -1)
  end
  spent = spent + #keys
  return queued, longest < 0 and -1 or shard.ms - longest
end

-- Returns how many tenants of a group wait for the kind of runtimes for which the most wait.
local function size_of_group(group)
  local most = 0
  for kind in shard.kinds:gmatch('%d+') do
    most = math.max(most, call('ZCARD', kind == '0' and GROUP .. group or KIND_GROUP .. kind .. ':' .. group))
    spent = spent + 1
  end
  return most
end

local stored, policies = read_all('HMGET', COUNTS, ARGV), read_all('HMGET', POLICY, ARGV)
for i, name in ipairs(ARGV) do
  if spent >= MOST then break end
  spent = spent + ALONE
  local queued, since = read_mailboxes(name)
  local group = policies[i] and cmsgpack.unpack(policies[i]).group
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = stored[i] or '', policies[i] or '', queued, integer(since)
  reply[n + 5] = group and call('HGET', POLICY, '\255' .. group) or ''
  reply[n + 6] = group and size_of_group(group) or 0
end
return reply
