-- The fair choice of the next tasks. Reads and decides; `turn.lua` writes.

-- The first `n` tenants of the ring, by tag.
local function line_up(n)
  local line, names = {}, {}
  local ring = n > 0 and call('ZRANGE', RING, 0, n - 1, 'WITHSCORES') or {}
  for i = 1, #ring, 2 do names[#names + 1] = ring[i] end
  meet(names)
  for i = 1, #ring, 2 do
    local t = tenants[ring[i]]
    local tag = tonumber(ring[i + 1])
    t[TAG], t[STORED] = tag, tag
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

-- The next id in a tenant's mailbox, or nil. Reads `n` ahead, and again if that was not enough.
local function peek(t, n)
  local head, at = t[HEAD], t[TAKEN] + 1
  if not head or (at > #head and #head == t[LIMIT]) then
    t[LIMIT] = head and 2 * t[LIMIT] or n
    head = call('ZRANGE', QUEUE .. t[NAME], 0, t[LIMIT] - 1)
    t[HEAD] = head
  end
  return head[at]
end

-- Chooses up to `n` tasks. Returns their ids in the order of service, and the tenant of each. To take n times from
-- a line of the n least tags is exact: who stands behind could not come first.
local function choose(n, arrivals)
  local line = line_up(n)
  for _, t in ipairs(arrivals) do stand_in(line, t) end
  local ids, owners, head = {}, {}, 1
  local ahead = math.ceil(n / math.max(#line, 1)) + 1 -- one more than its share, to see whether it stays
  while #ids < n and line[head] do
    local t = line[head]
    line[head] = false
    head = head + 1
    local id = peek(t, ahead)
    if id then
      ids[#ids + 1], owners[#owners + 1] = id, t
      shard.virtual = math.max(shard.virtual, t[TAG])
      t[TAG] = t[TAG] + 1 / t[WEIGHT]
      t[TAKEN] = t[TAKEN] + 1
      t[STARTED] = t[STARTED] + 1
    end
    if has_room(t) and peek(t, ahead) then
      stand_in(line, t)
    else
      t[LEAVES] = true
    end
  end
  return ids, owners
end

-- A record that somebody deleted by hand: its task goes out all the same, and fails there by name.
local function stand_for_lost(name)
  load_counts({ name })
  local priority = 1
  while priority < CRITICAL and counts[name][priority] == 0 do priority = priority + 1 end
  return struct.pack(HEADER, LIVE, 0, priority, 1, shard.stamp, #name, name)
end
