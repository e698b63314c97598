// Tilt series in groups that are worked on side by side, where there are many.
include { SPLIT } from '../modules/core/split'

workflow IN_GROUPS {
    take:
    inputs // [meta, name, settings] + series + [particle set] + more

    main:
    SPLIT(inputs.map { row -> [row[0], row[2].groups, row[4], row[7]] })

    emit:
    members = inputs.join(SPLIT.out).flatMap { row -> members(row) } // the same rows, one per group, with its particle set
}

workflow GATHERED {
    take:
    parts // [meta of a member, job]

    main:
    gathered = parts
        .map { meta, job -> [groupKey(meta.findAll { key, _value -> !(key in ['group', 'groups']) }, meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }

    emit:
    jobs = gathered // [meta, jobs in the order of the groups]
}

def members(row) {
    def groups = row[-1] instanceof List ? row[-1] : [row[-1]]
    return groups.withIndex().collect { group, index -> [row[0] + [group: index + 1, groups: groups.size()]] + row[1..6] + [group] + row[8..<-1] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
