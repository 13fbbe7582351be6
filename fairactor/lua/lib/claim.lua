-- Chooses the next tasks fairly.
--
-- The front of a ring: the entries to serve next, in the order of their tags.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/budget.lua

local release_throttled, choose, write_claims, write_slots, substitute_record
do
  local BATCH = 500 -- throttled tenants that one turn looks at
  local unlimited -- those of them that no longer have limits
  local MOST_PASSED = 100 -- tenants that one turn passes over
  local MORE_ENTRIES = 50
  local MOST_MOVED = 60 -- tasks of the common lane that one turn moves to other lanes
  local passed, seen, skip = 0, 0, 0 -- tenants; entries of the root ring, and those to leave out

  local limits_taken = {} -- task -> what its start takes of limits

  local function by_tag(a, b) return a[TAG] < b[TAG] end

  -- Inserts an entry by its tag, nearly always at the end, so the search starts there.
  local function insert_by_tag(front, t)
    local i, tag = #front, t[TAG]
    while i > 0 and front[i] and front[i][TAG] > tag do
      front[i + 1] = front[i]
      i = i - 1
    end
    front[i + 1] = t
  end

  -- Reads `n` entries of a ring from a rank on. Returns those that may be served with their stored tags, and how many
  -- there are in all.
  local function read_ring(ring, rank, n)
    local entries, names = {}, {}
    local found = n > 0 and call('ZRANGE', ring.key, rank, rank + n - 1, 'WITHSCORES') or {}
    for i = 1, #found, 2 do
      if found[i]:byte() ~= GROUP_BYTE then names[#names + 1] = found[i] end
    end
    load_tenants(names)
    if lanes then lanes.look_at_common(names) end
    for i = 1, #found, 2 do
      local t = tenants[found[i]] or group_of(found[i]:sub(2))
      t[STORED] = tonumber(found[i + 1])
      t[TAG] = t[TAG] or t[STORED]
      if t[TAG] == t[STORED] and not t[LEAVES] and not t[PASSED] then entries[#entries + 1] = t end
    end
    return entries, #found / 2
  end

  -- Merges the next entries of a ring into its front, by their tags. Returns how many these are.
  local function load_next(ring)
    local more, found = read_ring(ring, ring.rest, MORE_ENTRIES)
    local front, merged, i, j, n = ring.front, {}, ring.head, 1, 0
    while front[i] or more[j] do
      n = n + 1
      if not more[j] or front[i] and front[i][TAG] <= more[j][TAG] then
        merged[n], i = front[i], i + 1
      else
        merged[n], j = more[j], j + 1
      end
    end
    ring.front, ring.head = merged, 1
    ring.rest = found == MORE_ENTRIES and ring.rest + MORE_ENTRIES
    return #more
  end

  -- Loads the first `n` entries of a ring as its front. That is exact for `n` tasks: no later entry could come first.
  -- `rest` is the rank from which on there may be more.
  local function load_front(ring, n)
    local rank, length = ring == root and skip or 0, n + #ring.changed
    local front, found = read_ring(ring, rank, length)
    for _, t in ipairs(ring.changed) do
      if not t[LEAVES] and not t[PASSED] then insert_by_tag(front, t) end
    end
    ring.front, ring.head = front, 1
    ring.rest, ring.spare = found == length and rank + length, 0
    while #ring.front < n and ring.rest do load_next(ring) end -- some of them leave
    ring.ahead = math.ceil(n / math.max(#ring.front, 1)) + 1 -- one more than its share, to see whether it stays
  end

  -- Notes that an entry of a ring's front was passed over, and loads others in its place.
  local function pass_over(ring)
    ring.spare = ring.spare - 1
    while ring.spare < 0 and ring.rest do ring.spare = ring.spare + load_next(ring) end
  end

  -- Loads certain tenants as the front of a ring that exists only for this turn.
  local function load_front_of(names, n, virtual)
    local own = { front = {}, head = 1, spare = 0, virtual = virtual, ahead = math.ceil(n / math.max(#names, 1)) + 1 }
    load_tenants(names)
    load_tags(names)
    for _, group in pairs(groups) do group[INNER].front = nil end
    for _, name in ipairs(names) do
      local t = tenants[name]
      local group = t[OUTER].group
      if t[TAG] and not t[LEAVES] and not group then
        own.front[#own.front + 1] = t
      elseif t[TAG] and not t[LEAVES] then
        local inner = group[INNER]
        if not inner.front then
          inner.front, inner.head, inner.ahead, inner.rest, inner.spare = {}, 1, own.ahead, nil, 0
          own.front[#own.front + 1] = group
        end
        inner.front[#inner.front + 1] = t
      end
    end
    for _, group in pairs(groups) do
      if group[INNER].front then table.sort(group[INNER].front, by_tag) end
    end
    table.sort(own.front, by_tag)
    return own
  end

  -- Lets groups that were served be loaded again, since they may have other tenants. Their new tags are not stored yet.
  local function reset_group_fronts()
    local changed = {}
    for _, t in ipairs(root.changed) do changed[t] = true end
    for _, group in pairs(groups) do
      group[INNER].front = nil
      if group[TAG] ~= group[STORED] and not changed[group] then table.insert(root.changed, group) end
    end
  end

  -- As the server orders a mailbox. A sort is not stable: what is read twice must come in the same order.
  local function by_place(a, b) return a.place < b.place or a.place == b.place and a.id < b.id end

  -- Adds `n` tasks of a mailbox from a rank on, with their places, and those that this script adds, to `all`. Returns
  -- whether more may follow the last that was read.
  local function read_mailbox(all, key, arriving, rank, n, lane)
    local stored = call('ZRANGE', key, rank, rank + n - 1, 'WITHSCORES')
    for _, list in ipairs({ stored, arriving }) do
      local id_at = list == stored and 0 or 1
      for i = 1, #list, 2 do
        all[#all + 1] = { id = list[i + id_at], place = tonumber(list[i + 1 - id_at]), lane = lane }
      end
    end
    return #stored == 2 * n
  end

  -- Returns the first `n` ids of a mailbox, with those that this script adds.
  local function read_head(name, n)
    local arriving = queues[name]
    if not arriving then return call('ZRANGE', QUEUE .. name, 0, n - 1) end
    local all, ids = {}, {}
    local many = read_mailbox(all, QUEUE .. name, arriving, 0, n)
    table.sort(all, by_place)
    for i = 1, many and n or #all do ids[i] = all[i].id end
    return ids
  end

  -- @include lib/lane_heads.lua
  -- @include lib/plan.lua

  -- Adds what was read again to the first ids of a mailbox, which stay in the order in which they are claimed.
  local function extended(head, read)
    local known = {}
    for _, id in ipairs(head) do known[id] = true end
    for _, id in ipairs(read) do
      if not known[id] then head[#head + 1] = id end
    end
    return head
  end

  -- Returns the next id in a tenant's mailbox, or the one at `at`, or nil. Reads `n` at once, and more if needed.
  local function peek(t, n, at)
    local head = t[HEAD]
    at = at or t[TAKEN] + 1
    while not head or (at > #head and #head == t[AHEAD]) do
      if lanes then
        t[AHEAD] = at
        head = add_lane_heads(t[NAME], head or {}, at, n)
      else
        t[AHEAD] = head and 2 * t[AHEAD] or n
        local read = read_head(t[NAME], t[AHEAD])
        head = t[STUCK] and extended(head, read) or read
      end
      t[HEAD] = head
    end
    return head[at]
  end

  -- Whether a tenant that was served can be served again.
  local function stays_on_ring(t, ahead)
    local own = t[LIMITS]
    if not own and lanes then return t[TAKEN] < #t[HEAD] or has_more(t[NAME]) end
    if not own then return peek(t, ahead) end
    local eligible = eligibility(own)
    own.throttled = eligible ~= true and eligible
    return eligible == true
      and (not lanes or lanes.works(t[NAME], shard.kind) or limits and limits.has_planned(t[NAME]))
  end

  -- @include lib/slots.lua

  -- Takes the next task from a ring's front. Returns its id, tenant and cost to charge, and what those cost that join its
  -- batch; or nil. A tenant whose next task cannot start keeps its tag, and is passed over for the rest of the turn.
  local function take(ring, n)
    while passed < MOST_PASSED do
      local front = ring.front
      local t = front[ring.head]
      if not t then return end
      front[ring.head] = false
      ring.head = ring.head + 1
      local inner, id, owner, cost, more, actor = t[INNER], nil, t, nil, 0, nil
      if inner then
        if not inner.front then load_front(inner, n) end
        id, owner, cost, more = take(inner, n)
      elseif not t[LIMITS] or eligibility(t[LIMITS]) == true then
        if not capped then
          id = peek(t, ring.ahead)
        else
          id, actor = next_startable(t, ring.ahead)
          if not id and (t[STUCK] or 0) > 0 then t[PASSED], passed = true, passed + 1 end
        end
        if not id and sorting.stopped then t[PASSED], passed = true, passed + 1 end
        cost = id and cost_of(t[NAME], id)
      end
      if id then
        if not (ring.stealing and dedicated_time(owner[NAME])) then ring.virtual = math.max(ring.virtual, t[TAG]) end
        -- A tenant that was passed over may lag behind the others. It must not catch up at their cost.
        if not inner then
          count_taken(t, id)
          if actor then more = take_along(t, actor, batches[actor] - 1, most_bytes) end
        end
        t[TAG] = (capped and math.max(t[TAG], ring.virtual) or t[TAG]) + (cost + more) / t[WEIGHT]
      end
      if inner then
        if inner.front[inner.head] then insert_by_tag(front, t) end -- else see `write_groups`
      elseif not t[PASSED] and stays_on_ring(t, ring.ahead) then
        insert_by_tag(front, t)
      else
        t[LEAVES] = not t[PASSED]
        if limits then lanes.changed[t[NAME]] = true end -- it may belong in lines
      end
      if id then return id, owner, cost, more end
      if capped and not t[LEAVES] then
        if ring == root then seen = seen + 1 end
        pass_over(ring)
      elseif ring ~= root then -- it leaves the ring of its group, and others may wait there; see `serve_all`
        pass_over(ring)
      end
    end
  end

  -- Raises tags of tenants that other runtimes have served more slowly.
  local function raise_tags(own)
    for _, t in ipairs(own.front) do t[TAG] = math.max(t[TAG], own.virtual) end
  end

  -- Chooses up to `n` tasks: of tenants assigned to the runtime, then of those that it may steal from; or of all alike.
  local function fill(claims, runtime, n)
    local ids, most = claims.ids, math.min(n, sure)
    local function serve(ring)
      while claims.seated < most and claimed_bytes < most_bytes do
        local id, owner, cost = take(ring, most)
        if not id then return end
        add_claim(claims, id, owner, cost)
        claims.seated = claims.seated + 1
        if add_along then add_along(claims) end
      end
    end
    local function serve_more() -- while there is time; the front is exact for as many tasks as entries were read
      while claims.seated == most and most < n and has_time(1) do
        most = math.min(n, most + STEP)
        if root.rest then load_next(root) end
        serve(root)
      end
    end
    local function serve_all() -- skips tenants that should have left the ring since the defaults changed
      local length = most
      repeat
        load_front(root, length)
        serve(root)
        serve_more()
        length = 2 * length
      until claims.seated == most or not root.rest or passed == MOST_PASSED or claimed_bytes >= most_bytes
      out_of_time = claims.seated == most and most < n
    end
    local own_time = home_time(runtime)
    if not own_time then return serve_all() end
    local names, are_some = names_in(ASSIGNED .. runtime)
    local own = load_front_of(names, n, math.max(own_time, root.virtual))
    raise_tags(own)
    serve(own)
    claims.dedicated_time = own.virtual
    local assigned, others, are_some_others = #ids, {}, false
    if claims.seated < n then others, are_some_others = names_in(STEAL .. runtime) end
    if others[1] == '' then
      reset_group_fronts()
      root.stealing = true
      serve_all()
    elseif #others > 0 then
      local ring = load_front_of(others, n, root.virtual)
      ring.stealing = true
      serve(ring)
      root.virtual = ring.virtual
    end
    claims.stolen = #ids - assigned
    claims.sees_some = (are_some or are_some_others) and #ids > 0 -- others of its tenants may have tasks
  end

  -- Brings back tenants whose rate allows a task by now, and tidies away those that no longer have limits.
  function release_throttled()
    local freed = has_policies and call('ZRANGEBYSCORE', THROTTLED, '-inf', integer(shard.ms), 'LIMIT', 0, BATCH) or {}
    local waiting
    load_tenants(freed)
    if limits then limits.release_held() end
    unlimited, waiting = without_limits(freed)
    for _, name in ipairs(waiting) do arriving[#arriving + 1] = name end
  end

  -- Returns a record for a task whose own was deleted by hand: the task is claimed all the same, and its runtime fails
  -- it.
  function substitute_record(name)
    load_counts({ name })
    local priority = 1
    while priority < CRITICAL and counts[name][priority] == 0 do priority = priority + 1 end
    return struct.pack(HEADER, LIVE, 0, priority, 1, shard.stamp, #name, name)
  end

  -- Chooses up to `n` tasks for a runtime, of each kind as many as its slots allow: see `SlotKinds` in wire.py. Those of
  -- kind 1 may be `ahead` more. If it may claim at all (`may`), it takes besides what joins a batch. `missed` is a task that
  -- the runtime gets in any case, or nil: that takes a slot, too. Returns parallel lists in the order of service: ids, owners
  -- (tenants), charged costs and records; `reply` is each id and its record; how many need a slot; whether it stopped
  -- because the records, or its time, are `full`, or at too many tenants that were passed over, and the rank behind them.
  function choose(runtime, n, slots, ahead, may, missed)
    local claims = { ids = {}, owners = {}, charged = {}, records = {}, reply = {}, stolen = 0, seated = 0,
      taken = limits_taken }
    local open = NONE
    if lanes then open_heads() end
    if slots ~= '' then
      open_slots()
      room, skip, letters, capped, batches, open = unpack(cmsgpack.unpack(slots))
      if not may then batches, open = NONE, NONE end
      room[1], room_ahead = room[1] + ahead, ahead
      if missed then
        local kind = kind_of(missed)
        room[kind] = room[kind] - 1
      end
    end
    if limits and may and next(batches) then
      plan(runtime, n - ahead + MOST_ALONG)
    elseif limits then
      plan(runtime, n - ahead, room, capped and kind_of, note_no_room) -- what is claimed ahead does not start yet
    end
    if #open > 0 then fill_open(open) end
    if add_along then add_along(claims) end
    if n > 0 then fill(claims, runtime, limits and limits.most_claims(n) or n) end
    local starts_more = limits and limits.settle_plan(#claims.ids > 0)
    claims.stopped, claims.again = passed == MOST_PASSED, sorting.stopped or sorting.again or starts_more or claims.sees_some
    claims.behind = claims.stopped and skip + seen or 0
    claims.full = claimed_bytes >= most_bytes or out_of_time
    for i, record in ipairs(read_for_reply(claims.ids, BEGINNING)) do
      record = record or substitute_record(claims.owners[i][NAME])
      claims.records[i] = record
      claims.reply[2 * i - 1], claims.reply[2 * i] = claims.ids[i], record
    end
    return claims
  end

  function write_claims(runtime, turn, claims)
    local marks, heads = {}, {} -- priority -> the mark of a claim that costs 1, up to the tenant
    for i, id in ipairs(claims.ids) do
      local priority, cost, taken = claims.records[i]:byte(3), claims.charged[i], claims.taken[id]
      local name = claims.owners[i][NAME]
      marks[2 * i - 1] = id
      if cost == 1 and not taken and claims.alone ~= i then
        heads[priority] = heads[priority] or pack_mark(turn, priority, cost, '', false)
        marks[2 * i] = heads[priority] .. name
      else
        marks[2 * i] = pack_mark(turn, priority, cost, name, claims.alone == i, taken)
      end
    end
    write_all('HSET', CLAIMS .. runtime, marks)
    write_all('ZREM', THROTTLED, unlimited)
    for name, t in pairs(lanes and NONE or tenants) do
      if t[TAKEN] > 0 and (t[STUCK] or queues[name]) then -- not the first ones, or places may be equal
        write_all('ZREM', QUEUE .. name, t[HEAD], t[TAKEN])
      elseif t[TAKEN] > 0 then
        call('ZREMRANGEBYRANK', QUEUE .. name, 0, t[TAKEN] - 1)
      end
    end
    if lanes then write_lane_heads() end
    if claims.dedicated_time then call('HSET', HOMES, runtime, exact(claims.dedicated_time)) end
    if claims.stolen > 0 then call('HINCRBY', META, 'stolen', claims.stolen) end
  end
end
