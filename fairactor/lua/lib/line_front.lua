-- The front of a line: its first entries, tenants or groups, in the order of their tags.

-- @include lib/base.lua
-- @takes limits from lib/lanes.lua
-- @takes tenants, NAME, WEIGHT, OUTER, GROUP_BYTE, load_tenants from lib/ring.lua
-- @takes policy_of, NONE from lib/policy.lua
-- @takes FIRST_TENANTS, MORE_TENANTS, MOST_TENANTS from lib/plan.lua

local function insert_by_tag(front, entry)
  local i = #front
  while i > 0 and front[i].tag > entry.tag do
    front[i + 1] = front[i]
    i = i - 1
  end
  front[i + 1] = entry
end

-- Returns entries of a ring with their tags: of some tenants, or of all from a rank on.
local function read_entries(key, names, rank, n)
  if not names then return call('ZRANGE', key, rank, rank + n - 1, 'WITHSCORES') end
  local found = {}
  for i, tag in ipairs(read_all('ZMSCORE', key, names)) do
    if tag then found[#found + 1], found[#found + 2] = names[i], tag end
  end
  return found
end

-- Returns the tenants among entries.
local function tenants_among(found)
  local members = {}
  for i = 1, #found, 2 do
    if found[i]:byte() ~= GROUP_BYTE then members[#members + 1] = found[i] end
  end
  return members
end

-- Adds entries, whose tenants and limits are loaded, to a front.
local function add_entries(line, front, found)
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
end

-- Reads entries into a front. Returns how many there were.
local function read_front(line, front, key, names, rank, n)
  local found = read_entries(key, names, rank, n)
  local members = tenants_among(found)
  load_tenants(members)
  limits.load({ line.set }, { members })
  add_entries(line, front, found)
  return #found / 2
end

-- Adds tenants to the front of a line who come to it in this script: their own limits let them start again.
local function add_fresh(line, names)
  local wanted = {}
  for _, name in ipairs(names or NONE) do wanted[name] = true end
  for name in pairs(line.fresh) do
    if (not names or wanted[name]) and not call('ZSCORE', line.key, name) then
      limits.load({ line.set }, { { name } })
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

-- Loads the fronts of lines that are open, all at once: their first tenants. `served` of a front is how many tasks were
-- planned or entries left out: the next task is of one of the first `served` + 1 entries. `rest` is the rank of the first entry
-- that was not read, or false.
local function load_fronts(lines)
  local found, sets, members, names = {}, {}, {}, {}
  for i, line in ipairs(lines) do
    found[i] = line.blocked and NONE or read_entries(line.key, nil, 0, FIRST_TENANTS)
    sets[i], members[i] = line.set, tenants_among(found[i])
    for _, name in ipairs(members[i]) do names[#names + 1] = name end
  end
  load_tenants(names)
  limits.load(sets, members)
  for i, line in ipairs(lines) do
    line.front, line.served = {}, 0
    line.rest = #found[i] == 2 * FIRST_TENANTS and FIRST_TENANTS
    add_entries(line, line.front, found[i])
    if not line.blocked then add_fresh(line) end
  end
end

-- Loads the front of a group in a line.
local function load_group(line, group)
  group.front, group.served = {}, 0
  local many = read_front(line, group.front, group.key, group.names, 0, FIRST_TENANTS)
  group.rest = not group.names and many == FIRST_TENANTS and many
end

-- Loads the front of a line that has certain tenants only.
local function load_front_of(line, names)
  line.front, line.served, line.rest = {}, 0, false
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
  read_front(line, line.front, line.key, alone)
  for member, members in pairs(by_group) do
    local before = #line.front
    read_front(line, line.front, line.key, { member })
    for _, entry in ipairs(#line.front > before and line.front or NONE) do
      if entry.name == member then entry.names = members end
    end
  end
  add_fresh(line, names)
end

-- Returns the first entry of a front; reads more as entries are served or left out.
local function first_of(line, ring)
  while ring.rest and ring.rest < MOST_TENANTS and (not ring.front[1] or ring.served >= ring.rest) do
    local n = read_front(line, ring.front, ring.key, nil, ring.rest, MORE_TENANTS)
    ring.rest = n == MORE_TENANTS and ring.rest + n
  end
  return ring.front[1]
end
