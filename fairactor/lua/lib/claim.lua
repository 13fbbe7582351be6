-- The fair choice of the next tasks. Reads and decides; `turn.lua` writes.

-- The first `n` tenants of the ring, by tag.
local function line_up(n)
  local line, names = {}, {}
  local ring = n > 0 and call('ZRANGE', RING, 0, n - 1, 'WITHSCORES') or {}
  for i = 1, #ring, 2 do names[#names + 1] = ring[i] end
  load_tenants(names)
  for i = 1, #ring, 2 do
    local t = tenants[ring[i]]
    t[TAG] = tonumber(ring[i + 1])
    t[RING_TAG] = t[TAG]
    line[#line + 1] = t
  end
  return line
end

-- Puts a tenant into the line by its tag: nearly always at the end, so it looks from there.
local function stand_in(line, t)
  local i, tag = #line, t[TAG]
  while i > 0 and line[i] and line[i][TAG] > tag do
    line[i + 1] = line[i]
    i = i - 1
  end
  line[i + 1] = t
end

-- Chooses up to `n` services. Returns the tenants in the order of service; t[TAKE] says how many of its tasks
-- go. To take n times from a line of the n least tags is exact: who stands behind could not come first.
local function choose(n)
  local line = line_up(n)
  for _, name in ipairs(tag_arrivals()) do stand_in(line, tenants[name]) end
  local order, head = {}, 1
  while #order < n and line[head] do
    local t = line[head]
    line[head] = false
    head = head + 1
    order[#order + 1] = t
    shard.virtual = math.max(shard.virtual, t[TAG])
    t[TAG] = t[TAG] + 1 / t[WEIGHT]
    t[TAKE] = t[TAKE] + 1
    t[QUEUED] = t[QUEUED] - 1
    add(t, STARTED, 1)
    if eligible(t) then stand_in(line, t) end
  end
  return order
end

-- A record that somebody deleted by hand: its task goes out all the same, and fails there by name.
local function stand_for_lost(t)
  local priority = 1
  while priority < CRITICAL and t[FIRST + priority - 1] == 0 do priority = priority + 1 end
  return struct.pack(HEADER, LIVE, 0, priority, shard.stamp, #t[NAME], t[NAME])
end

-- Looks up what was chosen. Returns a list of ids and records in the order of service, and the ids by tenant.
local function collect(order)
  local ids, owners, heads, cursor = {}, {}, {}, {}
  for _, t in ipairs(order) do
    local name = t[NAME]
    local at = (cursor[name] or 0) + 1
    cursor[name] = at
    local mine = heads[name]
    if not mine then
      mine = call('ZRANGE', QUEUE .. name, 0, t[TAKE] - 1)
      heads[name] = mine
    end
    if mine[at] then
      ids[#ids + 1], owners[#owners + 1] = mine[at], t
    else
      add(t, STARTED, -1) -- counted, but not there
    end
  end
  local records, claims = read_records(ids), {}
  for i, id in ipairs(ids) do
    local t = owners[i]
    local record = records[i] or stand_for_lost(t)
    add(t, FIRST + record:byte(3) - 1, -1)
    claims[#claims + 1], claims[#claims + 2] = id, record
  end
  for name, mine in pairs(heads) do
    local t = tenants[name]
    if #mine < t[TAKE] then -- the mailbox is empty now, whatever was counted
      for priority = 1, CRITICAL do add_queued(t, priority, -t[FIRST + priority - 1]) end
      t[QUEUED] = 0
    end
  end
  return claims, heads
end
