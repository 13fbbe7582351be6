-- Finds tenants that come first in an order, or that have a part of a name, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 how: 'sizes', 'backlog', 'names', 'longest', 'served' or 'recent'; 2 of 'names' a cursor, 0 at first, of 'backlog' a
--       rank; 3 about how many; 4 of 'names' a part of the name, or ''; of 'recent' 2 and on: tenants
-- Reply of 'sizes' {now in µs, counts of the shard, packed, or '', the defaults, packed, or '', how many tenants have counts,
--        how many tenants and groups wait for the kind of runtimes for which the most wait, 1 if the index is complete (see
--        index_backlog.lua), by how much the weights of those that wait and have a policy exceed the usual one in sum};
--       of 'backlog' {tenant, its number in the index, ...}: those with the most live tasks, in order;
--       of 'names' {next cursor, 0 at the end, how many were looked at, tenant, ...}: any;
--       of 'longest' {tenant, ...}: those that may have waited for longest; of 'served' likewise: those that were served last;
--       of 'recent' for each tenant how many of its tasks have ended of late, as 5 bytes (see lib/counts.lua), or ''
--
-- Reads only. It looks at about as many tenants as were asked for, of 'longest' and 'served' for each of the kinds and places
-- where tenants wait, but at 1,000 at most, and of a group at 10; at 200 policies; and at 100 lanes. Of 'recent' its
-- caller names 1,500.

-- @include lib/intact.lua

local MOST, POLICIES, MOST_LANES = 1000, 200, 100
local OF_GROUP = 10 -- tenants of a group
local GROUP_MARK = 255 -- the byte before the name of a group
local n, found, is_found = tonumber(ARGV[3]) or 0, {}, {}

local function add_name(name)
  if not name or is_found[name] or #found >= MOST then return end
  found[#found + 1], is_found[name] = name, true
end

-- Returns some policies: {name, packed, ...}.
local function some_policies() return call('HSCAN', POLICY, 0, 'COUNT', POLICIES)[2] end

-- Adds entries of the rings, from one rank to another, and the first or the last tenants of their groups.
local function add_of_rings(from, to)
  for kind in shard.kinds:gmatch('%d+') do
    act_for(kind)
    for _, member in ipairs(#found < MOST and call('ZRANGE', shard.ring, from, to) or {}) do
      if member:byte() ~= GROUP_MARK then
        add_name(member)
      elseif #found < MOST then
        local first, last = math.max(from, -OF_GROUP), to < 0 and to or math.min(to, OF_GROUP - 1)
        for _, name in ipairs(call('ZRANGE', shard.group .. member:sub(2), first, last)) do add_name(name) end
      end
    end
  end
end

-- Adds the tenants whose tasks wait, although they are not on a ring.
local function add_held_back()
  for _, key in ipairs({ THROTTLED, HELD_BACK }) do
    for _, name in ipairs(call('ZRANGE', key, 0, n - 1)) do add_name(name) end
  end
  local policies = some_policies()
  for i = 1, #policies, 2 do
    local name, policy = policies[i], cmsgpack.unpack(policies[i + 1])
    if name ~= '' and name:byte() ~= GROUP_MARK and (policy.paused or policy.concurrency) then add_name(name) end
  end
  for _, lane in ipairs(shard.lanes and call('HRANDFIELD', LANES, MOST_LANES) or {}) do
    add_name(call('ZRANGE', IN_LANE .. lane, 0, 0)[1])
  end
end

-- Returns the difference of the weights of those that wait and have one of their own.
local function weight_beyond()
  local sum, names, weights = 0, {}, {}
  local packed = call('HGET', POLICY, '')
  local usual = packed and cmsgpack.unpack(packed).weight or 1
  local policies = some_policies()
  for i = 1, #policies, 2 do
    local name, weight = policies[i], cmsgpack.unpack(policies[i + 1]).weight
    if name ~= '' and weight then
      names[#names + 1], weights[#weights + 1] = name, weight - (name:byte() == GROUP_MARK and 1 or usual)
    end
  end
  for kind in shard.kinds:gmatch('%d+') do
    local key = kind == '0' and RING or KIND_RING .. kind
    for i, tag in ipairs(#names > 0 and read_all('ZMSCORE', key, names) or {}) do
      if tag then sum, weights[i] = sum + weights[i], 0 end
    end
  end
  return sum
end

local how = {}

function how.sizes()
  local most = 0
  for kind in shard.kinds:gmatch('%d+') do
    most = math.max(most, call('ZCARD', kind == '0' and RING or KIND_RING .. kind))
  end
  return { integer(shard.now), shard.total or '', call('HGET', POLICY, '') or '', call('HLEN', COUNTS), most,
    call('HGET', META, 'indexed') == '1' and 1 or 0, exact(weight_beyond()) }
end

function how.backlog()
  local rank = tonumber(ARGV[2])
  return n > 0 and call('ZRANGE', BACKLOG, rank, rank + n - 1, 'REV', 'WITHSCORES') or {}
end

function how.names()
  local part = call('HSCAN', COUNTS, ARGV[2], 'COUNT', n)
  local flat, reply = part[2], { part[1], #part[2] / 2 }
  for i = 1, #flat, 2 do
    if ARGV[4] == '' or flat[i]:find(ARGV[4], 1, true) then reply[#reply + 1] = flat[i] end
  end
  return reply
end

function how.longest()
  add_of_rings(0, n - 1)
  add_held_back()
  return found
end

function how.served()
  add_of_rings(-n, -1)
  return found
end

function how.recent()
  for i, packed in ipairs(read_all('HMGET', COUNTS, { unpack(ARGV, 2) })) do found[i] = packed and packed:sub(1, 5) or '' end
  return found
end

return how[ARGV[1]]()
