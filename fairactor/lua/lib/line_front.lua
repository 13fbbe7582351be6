-- The front of a line: its first entries, tenants or groups, in the order of their tags.

-- @include lib/base.lua
-- @takes limits from lib/lanes.lua
-- @takes tenants, NAME, WEIGHT, OUTER, GROUP_BYTE, load_tenants from lib/ring.lua
-- @takes policy_of, NONE from lib/policy.lua
-- @takes MORE_TENANTS, MOST_TENANTS from lib/plan.lua

local function insert_by_tag(front, entry)
  local i = #front
  while i > 0 and front[i].tag > entry.tag do
    front[i + 1] = front[i]
    i = i - 1
  end
  front[i + 1] = entry
end

-- Adds entries of a ring to a front: of some tenants, or of all from a rank on. Returns how many were read.
local function read_front(line, front, key, names, rank, n)
  local found = {}
  if names then
    for i, tag in ipairs(read_all('ZMSCORE', key, names)) do
      if tag then found[#found + 1], found[#found + 2] = names[i], tag end
    end
  else
    found = call('ZRANGE', key, rank, rank + n - 1, 'WITHSCORES')
  end
  local members = {}
  for i = 1, #found, 2 do
    if found[i]:byte() ~= GROUP_BYTE then members[#members + 1] = found[i] end
  end
  load_tenants(members)
  limits.load(line.set, members)
  for i = 1, #found, 2 do
    local name, entry = found[i], { name = found[i], tag = tonumber(found[i + 1]), charge = 0 }
    if name:byte() == GROUP_BYTE then
      entry.group, entry.weight = name:sub(2), policy_of(name).weight or 1
      entry.key = limits.group_key(line, entry.group)
      entry.virtual = tonumber(call('HGET', LINE_GROUPS .. line.id, entry.group) or nil) or 0
    else
      entry.weight = tenants[name][WEIGHT]
    end
    insert_by_tag(front, entry)
  end
  return #found / 2
end

-- Adds tenants to the front of a line who come to it in this script: their own limits let them start again.
local function add_fresh(line, names)
  local wanted = {}
  for _, name in ipairs(names or NONE) do wanted[name] = true end
  for name in pairs(line.fresh) do
    if (not names or wanted[name]) and not call('ZSCORE', line.key, name) then
      limits.load(line.set, { name })
      local clock, weight = limits.clock_of(line.first), tenants[name][WEIGHT]
      local tag = clock.virtual + (clock.average or 1) / weight
      insert_by_tag(line.front, { name = name, tag = tag, joins_at = tag, weight = weight, charge = 0 })
    end
  end
end

-- Looks whether the first tenant of a line still has tasks there: they have left it if the limits of their actor have
-- changed. A runtime with tenants of its own would never meet others in the line.
local function leave_if_gone(line)
  local name, key, group = call('ZRANGE', line.key, 0, 0)[1], line.key, nil
  if name and name:byte() == GROUP_BYTE then
    group = name:sub(2)
    key = limits.group_key(line, group)
    name = call('ZRANGE', key, 0, 0)[1]
  end
  if not name then return end
  load_tenants({ name })
  if not limits.works_in(line, name) then line.gone[#line.gone + 1] = { name = name, key = key, group = group } end
end

-- Loads the front of a line: of all tenants, or of some.
local function load_front(line, names, n)
  line.front = {}
  if not names then
    line.rest = read_front(line, line.front, line.key, nil, 0, n) == n and n
    return add_fresh(line)
  end
  leave_if_gone(line)
  load_tenants(names)
  local alone, by_group = {}, {}
  for _, name in ipairs(names) do
    local group = tenants[name][OUTER].group
    if not group then alone[#alone + 1] = name else
      by_group[group[NAME]] = by_group[group[NAME]] or {}
      table.insert(by_group[group[NAME]], name)
    end
  end
  read_front(line, line.front, line.key, alone, 0, n)
  for member, members in pairs(by_group) do
    local before = #line.front
    read_front(line, line.front, line.key, { member }, 0, n)
    for _, entry in ipairs(#line.front > before and line.front or NONE) do
      if entry.name == member then entry.names = members end
    end
  end
  add_fresh(line, names)
end

-- Returns the first entry of a front; reads more if the ones before were left out.
local function first_of(line, ring)
  if not ring.front[1] and ring.rest and ring.rest < MOST_TENANTS then
    local n = read_front(line, ring.front, ring.key, nil, ring.rest, MORE_TENANTS)
    ring.rest = n == MORE_TENANTS and ring.rest + n
  end
  return ring.front[1]
end
