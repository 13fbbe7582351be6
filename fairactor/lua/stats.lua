-- Returns counts, at a cost that does not depend on how much they count.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, or nothing for the whole shard, or '' for more of its runtimes, 2 then: the cursor
-- Reply of a tenant {counts, packed, or '', its policy, packed, or '', the defaults, likewise, how many are queued};
--       of the shard {counts, tenants on the ring, tenants with counts,
--       tasks due now (of more than 100 tenants: at least so many), dead letters, tasks stolen, tenants held back by
--       their rate, {unassigned tenants with work}, ms by which the server's clock was set back, and runtimes as follows};
--       of more of its runtimes {next cursor, 0 at the end,
--       [runtime, its description, ms of lease left, its started tasks] ...}: one may come twice
--
-- Reads only. A call returns about 100 runtimes.

-- @include lib/intact.lua
-- @include lib/homes.lua

local tenant = ARGV[1]
if tenant and not ARGV[2] then
  local policies = call('HMGET', POLICY, tenant, '')
  local queued = call('ZCARD', QUEUE .. tenant) + call('ZCARD', SUSPECTS .. tenant)
  for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. tenant, 0, -1) or {}) do
    queued = queued + call('ZCARD', mailbox(tenant, lane))
  end
  return { call('HGET', COUNTS, tenant) or '', policies[1] or '', policies[2] or '', queued }
end

local FAR = 1e15 -- ms: nothing real is that far away
local RUNTIMES = 100 -- in a call, about
local NAMES = 200 -- tenants of which it looks whether they are assigned
local now = shard.ms

-- Returns the next cursor, and some runtimes with their descriptions, ms of lease left and started tasks.
local function read_fleet(cursor)
  local found, names = call('ZSCAN', LEASES, cursor, 'COUNT', RUNTIMES), {}
  local leases = found[2]
  for i = 1, #leases, 2 do names[#names + 1] = leases[i] end
  local fleet, descriptions = { found[1] }, read_all('HMGET', FLEET, names)
  for i, runtime in ipairs(names) do
    fleet[#fleet + 1] = runtime
    fleet[#fleet + 1] = descriptions[i] or ''
    fleet[#fleet + 1] = math.max(-FAR, math.min(tonumber(leases[2 * i]) - now, FAR))
    fleet[#fleet + 1] = call('HLEN', CLAIMS .. runtime)
  end
  return fleet
end

if tenant then return read_fleet(ARGV[2]) end

-- Whether a runtime serves all tenants, if only when its own have no work.
local function any_serves_all()
  if number_of_homes < call('ZCARD', LEASES) then return true end
  for _, runtime in ipairs(call('SRANDMEMBER', STOLEN_BY, MOST_HOMES)) do
    if home_time(runtime) and serves_all(runtime) then return true end
  end
  for _, runtime in ipairs(unindexed) do
    if serves_all(runtime) then return true end
  end
  return false
end

-- If every runtime is dedicated: those of the next tenants that are assigned to none.
local function unassigned()
  local found, names = {}, {}
  if not has_dedicated or any_serves_all() then return found end
  for kind in shard.kinds:gmatch('%d+') do
    act_for(kind)
    for _, member in ipairs(call('ZRANGE', shard.ring, 0, 99)) do
      local left = NAMES - #names
      local grouped = left > 0 and member:byte() == 255 and call('ZRANGE', shard.group .. member:sub(2), 0, math.min(left, 100) - 1)
      for _, name in ipairs(grouped or left > 0 and { member } or {}) do names[#names + 1] = name end
    end
  end
  for _, name in ipairs(names) do
    if #homes_of(name) == 0 then found[#found + 1] = name end
  end
  return found
end

-- Counts the due tasks: each one of the first tenants, and one for each of the others.
local function count_due()
  local MOST = 100
  local names = call('ZRANGEBYSCORE', SCHEDULED, '-inf', integer(now), 'LIMIT', 0, MOST)
  local number = #names == MOST and call('ZCOUNT', SCHEDULED, '-inf', integer(now)) - MOST or 0
  for _, name in ipairs(names) do number = number + call('ZCOUNT', DELAYED .. name, '-inf', integer(now)) end
  return number
end

-- Returns how many tenants and groups wait for the kind of runtimes for which the most wait.
local function count_waiting()
  local most = 0
  for kind in shard.kinds:gmatch('%d+') do
    most = math.max(most, call('ZCARD', kind == '0' and RING or KIND_RING .. kind))
  end
  return most
end

return {
  shard.total or '', count_waiting(), call('HLEN', COUNTS),
  count_due(), call('ZCOUNT', DEAD, integer(shard.now), '+inf'),
  tonumber(call('HGET', META, 'stolen') or 0) or 0, call('ZCARD', THROTTLED), unassigned(),
  math.floor(shard.behind / 1000), unpack(read_fleet('0')),
}
