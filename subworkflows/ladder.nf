// The levels that begin with oriented particles, one after the other. Data sets with fewer levels leave earlier; a process
// cannot be called twice, so each rung is the same sub-workflow under a name of its own.
include { LEVEL as LEVEL_2 } from './level'
include { LEVEL as LEVEL_3 } from './level'
include { LEVEL as LEVEL_4 } from './level'
include { LEVEL as LEVEL_5 } from './level'
include { LEVEL as LEVEL_6 } from './level'
include { LEVEL as LEVEL_7 } from './level'
include { LEVEL as LEVEL_8 } from './level'

workflow LADDER {
    take:
    starts // [meta, settings of the levels that are left, series, given mask, particle set, what the reference is made from, given map]

    main:
    rung_2 = starts.filter { row -> row[1] }
    LEVEL_2(rung_2.map { row -> [row[0], row[1][0]] + row[2..6] })
    after_2 = rung_2.join(LEVEL_2.out.particles).map { row -> next(row) }
    rung_3 = after_2.filter { row -> row[1] }
    LEVEL_3(rung_3.map { row -> [row[0], row[1][0]] + row[2..6] })
    after_3 = rung_3.join(LEVEL_3.out.particles).map { row -> next(row) }
    rung_4 = after_3.filter { row -> row[1] }
    LEVEL_4(rung_4.map { row -> [row[0], row[1][0]] + row[2..6] })
    after_4 = rung_4.join(LEVEL_4.out.particles).map { row -> next(row) }
    rung_5 = after_4.filter { row -> row[1] }
    LEVEL_5(rung_5.map { row -> [row[0], row[1][0]] + row[2..6] })
    after_5 = rung_5.join(LEVEL_5.out.particles).map { row -> next(row) }
    rung_6 = after_5.filter { row -> row[1] }
    LEVEL_6(rung_6.map { row -> [row[0], row[1][0]] + row[2..6] })
    after_6 = rung_6.join(LEVEL_6.out.particles).map { row -> next(row) }
    rung_7 = after_6.filter { row -> row[1] }
    LEVEL_7(rung_7.map { row -> [row[0], row[1][0]] + row[2..6] })
    after_7 = rung_7.join(LEVEL_7.out.particles).map { row -> next(row) }
    rung_8 = after_7.filter { row -> row[1] }
    LEVEL_8(rung_8.map { row -> [row[0], row[1][0]] + row[2..6] })

    emit:
    finals = LEVEL_2.out.finals.mix(LEVEL_3.out.finals, LEVEL_4.out.finals, LEVEL_5.out.finals, LEVEL_6.out.finals, LEVEL_7.out.finals, LEVEL_8.out.finals)
    jobs = LEVEL_2.out.jobs.mix(LEVEL_3.out.jobs, LEVEL_4.out.jobs, LEVEL_5.out.jobs, LEVEL_6.out.jobs, LEVEL_7.out.jobs, LEVEL_8.out.jobs)
}

// What the next rung begins with: the levels that are left and the particles of this one; a map is given to the first only.
def next(row) {
    return [row[0], row[1].drop(1), row[2], row[3], row[7], row[8], []]
}
